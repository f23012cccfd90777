#include "qatx/convert/rules/dynamic.h"

#include <string_view>
#include <utility>

#include "qatx/convert/rules/between.h"
#include "qatx/convert/rules/layer.h"
#include "qatx/convert/rules/rules.h"

namespace qatx::torchscript {
namespace {

namespace jit = torch::jit;

// What a node reads that quantizes rows as the node `dynamic` does. Returns an empty string, or the
// reason why it cannot.
std::string read_rows(Lowering& lowering, jit::Node* dynamic, engine::Node& node) {
  jit::Value* x = dynamic->input(0);
  const auto quant_max = lowering.ints(dynamic->input(1));
  if (!quant_max) return "quant_max depends on the input";
  if (!lowering.has_dtype(x, at::kFloat)) return "arithmetic is not in float32";
  if (!lowering.sizes(x) || lowering.sizes(x)->empty()) return "its input is no tensor of rows";
  node.ints = {{"quant_max", *quant_max}};
  node.inputs = {lowering.codes(x) ? lowering.use_codes(x) : lowering.use_float(x)};
  return "";
}

}  // namespace

bool is_dynamic(const jit::Value* value) {
  return std::string_view(value->node()->kind().toQualString()) == "qatx::dynamic_fake_quantize";
}

std::string lower_dynamic_fake_quantize(Lowering& lowering, jit::Node* node) {
  if (node->output(1)->hasUses()) return "its scales are used";
  // Linear layers quantize their rows themselves: this is for other readers, where there are any.
  engine::Node rows{.op = "dynamic_fake_quantize"};
  if (auto reason = read_rows(lowering, node, rows); !reason.empty()) return reason;
  jit::Value* x = node->input(0);
  add_as_pixels(lowering, std::move(rows), x, node->output(0), lowering.sizes(x)->size());
  return "";
}

std::string lower_dynamic_linear(Lowering& lowering, jit::Node* node) {
  engine::Node linear{.op = "dynamic_linear"};
  auto reason = lower_weights(lowering, node->input(1), node->input(2), 2, linear);
  if (!reason.empty()) return reason;
  jit::Node* dynamic = node->input(0)->node();
  if (reason = read_rows(lowering, dynamic, linear); !reason.empty()) return reason;
  jit::Value* x = dynamic->input(0);
  add_as_pixels(lowering, std::move(linear), x, node->output(), lowering.sizes(x)->size());
  return "";
}

}  // namespace qatx::torchscript
