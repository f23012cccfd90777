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
  at::Tensor values;   // [256]; or [C, 256], for each index along `axis`
  std::optional<int64_t> axis;
};

// What makes a value that is_table(); nullptr for others.
const engine::Node* find_table(const Lowering& lowering, const jit::Value* value) {
  const auto number = lowering.own_float(value);
  const engine::Node* node = number ? engine::producer(lowering.graph(), *number) : nullptr;
  return node && node->op == "table" ? node : nullptr;
}

bool is_by_channel(const jit::Node* node) {
  return node->kind() == c10::aten::prelu || node->kind() == c10::aten::batch_norm;
}

// The dimension of a value of these sizes whose indices a constant has one element for each of.
std::optional<int64_t> axis_of(const jit::Node* node, const at::Tensor& constant,
                               const std::vector<int64_t>& sizes) {
  const auto dimensions = static_cast<int64_t>(sizes.size());
  std::optional<int64_t> axis;
  if (is_by_channel(node)) {
    if (constant.dim() == 1) axis = 1;
  } else {
    for (int64_t d = 0; d < constant.dim(); ++d) {
      if (constant.size(d) == 1) continue;
      if (axis) return std::nullopt;  // two dimensions
      axis = dimensions - constant.dim() + d;
    }
  }
  const bool fits = axis && constant.dim() <= dimensions && *axis > 0 && *axis < dimensions &&
                    constant.numel() == sizes[static_cast<size_t>(*axis)];
  return fits ? axis : std::nullopt;
}

// The one input that is no constant; the others must not make the result any larger, and may differ
// along one dimension.
std::string find_argument(Lowering& lowering, const jit::Node* node, Argument& argument) {
  std::optional<size_t> found;
  size_t most_dimensions = 0;
  std::vector<at::Tensor> vectors;
  for (size_t i = 0; i < node->inputs().size(); ++i) {
    const auto constant = lowering.constant(node->input(i));
    if (!constant) {
      if (found) return "several inputs are not constant";
      found = i;
    } else if (constant->isTensor() && constant->toTensor().defined()) {
      const at::Tensor t = constant->toTensor();
      // Batch normalization takes no tensor without channels.
      if (t.numel() != 1 || node->kind() == c10::aten::batch_norm) vectors.push_back(t);
      if (!is_by_channel(node)) {
        most_dimensions = std::max(most_dimensions, static_cast<size_t>(t.dim()));
      }
    }
  }
  if (!found) return "all inputs are constant";
  const jit::Value* input = node->input(*found);
  const auto* sizes = lowering.sizes(input);
  if ((most_dimensions > 0 || !vectors.empty()) && (!sizes || sizes->size() < most_dimensions)) {
    return "a constant has more dimensions than the input";
  }
  argument.index = *found;
  if (const auto codes = lowering.codes(input)) {
    argument.codes = codes;
    argument.values = values_of_codes(*codes);
  } else {
    const engine::Node* table = find_table(lowering, input);
    if (!table) return "input is not fake-quantized";
    argument.value = table->inputs[0];
    argument.values = table->tensors.at("values");
    if (table->ints.contains("axis")) argument.axis = table->ints.at("axis")[0];
    if (argument.axis && !sizes) return "its input's dimensions are not known";
  }
  for (const at::Tensor& vector : vectors) {
    const auto axis = axis_of(node, vector, *sizes);
    if (!axis || (argument.axis && argument.axis != axis)) {
      return "constants differ along more than one dimension";
    }
    argument.axis = axis;
    if (argument.values.dim() == 1) {
      argument.values = argument.values.expand({vector.numel(), -1});
    }
  }
  return "";
}

// The values as the input of the node, of as many dimensions: one code for each "sample".
at::Tensor input_of(const Argument& argument, const std::vector<int64_t>* sizes) {
  if (sizes == nullptr || sizes->empty()) return argument.values;  // then they have no axis
  std::vector<int64_t> shape(sizes->size(), 1);
  shape[0] = argument.values.size(-1);
  if (!argument.axis) return argument.values.view(shape);
  shape[static_cast<size_t>(*argument.axis)] = argument.values.size(0);
  return argument.values.t().contiguous().view(shape);
}

}  // namespace

bool is_table(const Lowering& lowering, const jit::Value* value) {
  return find_table(lowering, value) != nullptr;
}

at::Tensor values_of_codes(const kernels::QParams& qparams) {
  std::vector<uint8_t> codes(256);
  std::iota(codes.begin(), codes.end(), uint8_t{0});
  at::Tensor values = at::empty({256}, at::kFloat);
  kernels::active().elementwise.dequantize(codes.data(), values.mutable_data_ptr<float>(), 256,
                                           qparams);
  return values;
}

// Any function of one value, which may differ between the indices of one dimension: PyTorch's own
// operator says what it gives for each code. A function of such a function is one, too.
std::string lower_table(Lowering& lowering, jit::Node* node) {
  Argument argument{};
  if (auto reason = find_argument(lowering, node, argument); !reason.empty()) return reason;
  const at::Tensor input = input_of(argument, lowering.sizes(node->input(argument.index)));
  std::vector<c10::IValue> inputs;
  for (size_t i = 0; i < node->inputs().size(); ++i) {
    inputs.push_back(i == argument.index ? c10::IValue(input) : *lowering.constant(node->input(i)));
  }
  const auto outputs = evaluate(node, std::move(inputs));
  if (!outputs || outputs->size() != 1 || !outputs->at(0).isTensor()) {
    return "its result is no tensor";
  }
  at::Tensor values = outputs->at(0).toTensor().contiguous();
  if (values.scalar_type() != at::kFloat || values.sizes() != input.sizes()) {
    return "its result is not a float32 tensor of the input's shape";
  }
  values = argument.axis ? values.view({argument.values.size(1), -1}).t().contiguous()
                         : values.view({-1});
  engine::Node table{.op = "table"};
  table.inputs = {argument.codes ? lowering.use_codes(node->input(argument.index))
                                 : argument.value};
  table.tensors = {{"values", values.clone()}};
  if (argument.axis) table.ints = {{"axis", {*argument.axis}}};
  lowering.add_node(std::move(table), node->output(), std::nullopt);
  return "";
}

std::string lower_batch_norm(Lowering& lowering, jit::Node* node) {
  const auto training = lowering.ints(node->input(5));
  if (!training || training->at(0) != 0) return "normalizes with the statistics of its input";
  return lower_table(lowering, node);
}

}  // namespace qatx::torchscript
