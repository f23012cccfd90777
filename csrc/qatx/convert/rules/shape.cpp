#include "qatx/convert/rules/rules.h"

namespace qatx::torchscript {
namespace {

namespace jit = torch::jit;

std::string add_reshape(Lowering& lowering, jit::Node* node, std::vector<int64_t> sizes) {
  if (sizes.size() == 4) return "its result has 4 dimensions";
  engine::Node reshape{.op = "reshape"};
  reshape.ints = {{"sizes", std::move(sizes)}};
  reshape.inputs = {lowering.use_codes(node->input(0))};
  lowering.add_node(std::move(reshape), node->output(), lowering.codes(node->input(0)));
  return "";
}

// Whether `value` is x.size(d), as tracing writes it: aten::Int(prim::NumToTensor(aten::size(x,
// d))).
bool is_size_of(Lowering& lowering, const jit::Value* value, const jit::Value* x, int64_t d) {
  const jit::Node* node = value->node();
  while (node->kind() == c10::aten::Int || node->kind() == c10::prim::NumToTensor) {
    node = node->input(0)->node();
  }
  return node->kind() == c10::aten::size && node->inputs().size() == 2 && node->input(0) == x &&
         lowering.ints(node->input(1)) == std::vector<int64_t>{d};
}

}  // namespace

std::string lower_flatten(Lowering& lowering, jit::Node* node) {
  const jit::Value* input = node->input(0);
  if (!lowering.codes(input)) return "input is not fake-quantized";
  const auto* input_sizes = lowering.sizes(input);
  const auto start = lowering.ints(node->input(1));
  const auto end = lowering.ints(node->input(2));
  if (!input_sizes || !start || !end) return "its dimensions are not known";
  const auto dim = static_cast<int64_t>(input_sizes->size());
  const int64_t first = (*start)[0] < 0 ? (*start)[0] + dim : (*start)[0];
  if ((*end)[0] != -1 && (*end)[0] != dim - 1) return "does not reach the last dimension";
  // 0 keeps a dimension, -1 takes all the rest.
  std::vector<int64_t> sizes(static_cast<size_t>(first), 0);
  sizes.push_back(-1);
  return add_reshape(lowering, node, std::move(sizes));
}

std::string lower_reshape(Lowering& lowering, jit::Node* node) {
  const jit::Value* input = node->input(0);
  if (!lowering.codes(input)) return "input is not fake-quantized";
  std::vector<int64_t> sizes;
  if (const auto constant = lowering.ints(node->input(1))) {
    sizes = *constant;
    if (std::find(sizes.begin(), sizes.end(), 0) != sizes.end()) return "makes an empty tensor";
    return add_reshape(lowering, node, std::move(sizes));
  }
  const jit::Node* list = node->input(1)->node();
  if (list->kind() != c10::prim::ListConstruct) return "its sizes are not known";
  for (const jit::Value* element : list->inputs()) {
    const auto d = static_cast<int64_t>(sizes.size());
    if (const auto size = lowering.ints(element); size && size->size() == 1 && (*size)[0] != 0) {
      sizes.push_back((*size)[0]);
    } else if (is_size_of(lowering, element, input, d)) {
      sizes.push_back(0);
    } else {
      return "its sizes are neither constant nor those of its input";
    }
  }
  return add_reshape(lowering, node, std::move(sizes));
}

// Dropout in evaluation mode, contiguous: the same values.
std::string lower_identity(Lowering& lowering, jit::Node* node) {
  if (!lowering.codes(node->input(0))) return "input is not fake-quantized";
  if (std::string_view(node->kind().toQualString()).ends_with("dropout")) {
    const auto train = lowering.constant(node->input(2));
    if (!train || train->toBool()) return "is in training mode";
  }
  lowering.alias(node->output(), node->input(0));
  return "";
}

}  // namespace qatx::torchscript
