#include "qatx/convert/rules/table.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <numeric>

#include "qatx/convert/evaluate.h"
#include "qatx/convert/rules/rules.h"
#include "qatx/kernels/registry.h"

namespace qatx::torchscript {
namespace {

namespace jit = torch::jit;

// What a function of one value meets: codes, and what each of them stands for.
struct Argument {
  size_t index;  // among the node's inputs
  std::optional<kernels::QParams> codes;
  int64_t value = -1;  // in the graph, where another table makes it
  at::Tensor values;
};

const engine::Node* find_table(const engine::Graph& graph, int64_t value) {
  const engine::Node* node = engine::producer(graph, value);
  return node && node->op == "table" ? node : nullptr;
}

// The one input that is no constant; the others must not make the result any larger.
std::string find_argument(Lowering& lowering, const jit::Node* node, Argument& argument) {
  std::optional<size_t> found;
  size_t most_dimensions = 0;
  for (size_t i = 0; i < node->inputs().size(); ++i) {
    const auto constant = lowering.constant(node->input(i));
    if (!constant) {
      if (found) return "several inputs are not constant";
      found = i;
    } else if (constant->isTensor() && constant->toTensor().defined()) {
      if (constant->toTensor().numel() != 1) return "a constant has more than one element";
      most_dimensions = std::max(most_dimensions, static_cast<size_t>(constant->toTensor().dim()));
    }
  }
  if (!found) return "all inputs are constant";
  const jit::Value* input = node->input(*found);
  const auto* sizes = lowering.sizes(input);
  if (most_dimensions > 0 && (!sizes || sizes->size() < most_dimensions)) {
    return "a constant has more dimensions than the input";
  }
  argument.index = *found;
  if (const auto codes = lowering.codes(input)) {
    argument.codes = codes;
    argument.values = values_of_codes(*codes);
    return "";
  }
  const auto value = lowering.own_float(input);
  const engine::Node* table = value ? find_table(lowering.graph(), *value) : nullptr;
  if (!table) return "input is not fake-quantized";
  argument.value = table->inputs[0];
  argument.values = table->tensors.at("values");
  return "";
}

}  // namespace

at::Tensor values_of_codes(const kernels::QParams& qparams) {
  std::vector<uint8_t> codes(256);
  std::iota(codes.begin(), codes.end(), uint8_t{0});
  at::Tensor values = at::empty({256}, at::kFloat);
  kernels::active().elementwise.dequantize(codes.data(), values.mutable_data_ptr<float>(), 256,
                                           qparams);
  return values;
}

// Any function of one value: PyTorch's own operator says what it gives for each code. A function of
// such a function is one, too.
std::string lower_table(Lowering& lowering, jit::Node* node) {
  Argument argument{};
  if (auto reason = find_argument(lowering, node, argument); !reason.empty()) return reason;
  std::vector<c10::IValue> inputs;
  for (size_t i = 0; i < node->inputs().size(); ++i) {
    inputs.push_back(i == argument.index ? c10::IValue(argument.values)
                                         : *lowering.constant(node->input(i)));
  }
  const auto outputs = evaluate(node, std::move(inputs));
  if (!outputs || outputs->size() != 1 || !outputs->at(0).isTensor()) {
    return "its result is no tensor";
  }
  const at::Tensor values = outputs->at(0).toTensor().flatten().contiguous();
  if (values.scalar_type() != at::kFloat || values.numel() != argument.values.numel()) {
    return "its result is not a float32 tensor of the input's shape";
  }
  engine::Node table{.op = "table"};
  table.inputs = {argument.codes ? lowering.use_codes(node->input(argument.index))
                                 : argument.value};
  table.tensors = {{"values", values.clone()}};
  lowering.add_node(std::move(table), node->output(), std::nullopt);
  return "";
}

}  // namespace qatx::torchscript
