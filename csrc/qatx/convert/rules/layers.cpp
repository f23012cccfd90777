#include <string_view>

#include "qatx/convert/rules/arguments.h"
#include "qatx/convert/rules/layer.h"
#include "qatx/convert/rules/rules.h"

namespace qatx::torchscript {
namespace {

namespace jit = torch::jit;

// top, left, bottom, right; "same" puts the odd pixel at the end, as PyTorch does.
std::optional<std::vector<int64_t>> padding(Lowering& lowering, const jit::Value* value,
                                            const at::IntArrayRef kernel,
                                            const std::vector<int64_t>& dilation) {
  if (const auto mode = lowering.constant(value); mode && mode->isString()) {
    if (mode->toStringRef() == "valid") return std::vector<int64_t>(4, 0);
    const int64_t vertical = dilation[0] * (kernel[0] - 1);
    const int64_t horizontal = dilation[1] * (kernel[1] - 1);
    return std::vector<int64_t>{vertical / 2, horizontal / 2, vertical - vertical / 2,
                                horizontal - horizontal / 2};
  }
  const auto sides = pair(lowering, value);
  if (!sides) return std::nullopt;
  return std::vector<int64_t>{(*sides)[0], (*sides)[1], (*sides)[0], (*sides)[1]};
}

}  // namespace

std::string lower_convolution(Lowering& lowering, jit::Node* node) {
  const std::string_view kind = node->kind().toQualString();
  const bool general = kind == "aten::_convolution";
  if (general) {
    const auto transposed = lowering.constant(node->input(6));
    if (!transposed || transposed->toBool()) return "is transposed";
  }
  const auto weight = lowering.constant(node->input(1));
  if (!weight || !weight->isTensor()) return "weight depends on the input";
  if (weight->toTensor().dim() != 4) return "is not two-dimensional";
  if (!has_dimensions(lowering, node->input(0), 4)) return "input has no batch dimension";
  const auto stride = pair(lowering, node->input(3));
  const auto dilation = pair(lowering, node->input(5));
  const auto groups = lowering.ints(node->input(general ? 8 : 6));
  if (!stride || !dilation || !groups) return "stride, dilation or groups depend on the input";
  const auto pads =
      padding(lowering, node->input(4), weight->toTensor().sizes().slice(2), *dilation);
  if (!pads) return "padding depends on the input";

  engine::Node conv{.op = "conv2d"};
  conv.ints = {
      {"stride", *stride}, {"dilation", *dilation}, {"padding", *pads}, {"groups", *groups}};
  const std::string reason =
      lower_layer(lowering, node->input(0), node->input(1), node->input(2), 4, conv);
  if (reason.empty()) lowering.add_node(std::move(conv), node->output(), std::nullopt);
  return reason;
}

std::string lower_linear(Lowering& lowering, jit::Node* node) {
  if (!lowering.sizes(node->input(0))) return "its input's dimensions are not known";
  // The last dimension of an image lies apart in memory.
  if (has_dimensions(lowering, node->input(0), 4)) return "input has 4 dimensions";
  engine::Node linear{.op = "linear"};
  const std::string reason =
      lower_layer(lowering, node->input(0), node->input(1), node->input(2), 2, linear);
  if (reason.empty()) lowering.add_node(std::move(linear), node->output(), std::nullopt);
  return reason;
}

}  // namespace qatx::torchscript
