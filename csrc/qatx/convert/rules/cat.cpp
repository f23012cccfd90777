#include <algorithm>

#include "qatx/convert/rules/rules.h"
#include "qatx/convert/rules/sizes.h"

namespace qatx::torchscript {
namespace {

namespace jit = torch::jit;

// Why the tensors of a list cannot be put together in integers by `cat`; "" where they can.
std::string check_cat(Lowering& lowering, const jit::Node* list, const jit::Node* cat) {
  if (std::string_view(cat->kind().toQualString()) != "aten::cat") return "has no integer form";
  if (list->kind() != c10::prim::ListConstruct || list->inputs().empty()) {
    return "its inputs are not known";
  }
  for (const jit::Value* element : list->inputs()) {
    if (!lowering.codes(element)) return "an input is not fake-quantized";
  }
  return dimension(lowering, cat->input(1), list->input(0)) ? "" : "its dimension is not known";
}

}  // namespace

// A list of values that stay codes, because all that use it put them together.
std::string lower_list(Lowering& lowering, jit::Node* node) {
  const auto& uses = node->output()->uses();
  const bool all = !uses.empty() && std::all_of(uses.begin(), uses.end(), [&](const jit::Use& use) {
    return check_cat(lowering, node, use.user).empty();
  });
  return all ? "" : "is no list of codes";
}

std::string lower_cat(Lowering& lowering, jit::Node* node) {
  jit::Node* list = node->input(0)->node();
  if (auto reason = check_cat(lowering, list, node); !reason.empty()) return reason;
  if (!lowering.island_of(list)) return "others use the list of its inputs";
  engine::Node cat{.op = "cat"};
  cat.ints = {{"dim", {*dimension(lowering, node->input(1), list->input(0))}}};
  const auto first = lowering.codes(list->input(0));
  bool same = true;
  for (jit::Value* element : list->inputs()) {
    same &= lowering.codes(element) == first;
    cat.inputs.push_back(lowering.use_codes(element));
  }
  // Codes of different parameters are quantized anew, by what comes behind.
  lowering.add_node(std::move(cat), node->output(), same ? first : std::nullopt);
  return "";
}

}  // namespace qatx::torchscript
