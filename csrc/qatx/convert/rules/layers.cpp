#include <string_view>

#include "qatx/convert/rules/arguments.h"
#include "qatx/convert/rules/between.h"
#include "qatx/convert/rules/dynamic.h"
#include "qatx/convert/rules/layer.h"
#include "qatx/convert/rules/rules.h"
#include "qatx/engine/moves.h"
#include "qatx/engine/operators/layout.h"

namespace qatx::torchscript {
namespace {

namespace jit = torch::jit;

// One number for each spatial dimension of a convolution, of which there are one to three. A line
// is an image of height 1: `height` is what that takes.
std::optional<std::vector<int64_t>> spatial(Lowering& lowering, const jit::Value* value,
                                            size_t dimensions, int64_t height) {
  auto given = numbers(lowering, value, dimensions);
  if (given && dimensions == 1) given->insert(given->begin(), height);
  return given;
}

// All that lies before the input, then all behind it; "same" puts the odd pixel at the end, as
// PyTorch does.
std::optional<std::vector<int64_t>> padding(Lowering& lowering, const jit::Value* value,
                                            const at::IntArrayRef kernel,
                                            const std::vector<int64_t>& dilation) {
  std::vector<int64_t> before;
  std::vector<int64_t> behind;
  if (const auto mode = lowering.constant(value); mode && mode->isString()) {
    const bool same = mode->toStringRef() == "same";
    if (kernel.size() == 1) before.push_back(0);
    for (size_t d = 0; d < kernel.size(); ++d) {
      const int64_t width = dilation[before.size()] * (kernel[d] - 1);
      before.push_back(same ? width / 2 : 0);
      behind.push_back(same ? width - width / 2 : 0);
    }
    if (kernel.size() == 1) behind.insert(behind.begin(), 0);
  } else {
    const auto sides = spatial(lowering, value, kernel.size(), 0);
    if (!sides) return std::nullopt;
    before = behind = *sides;
  }
  before.insert(before.end(), behind.begin(), behind.end());
  return before;
}

// The convolution `conv` that `node` is. One with a weight of three dimensions works along a line,
// and runs on that as an image of height 1.
void add_convolution(Lowering& lowering, engine::Node conv, jit::Node* node, int64_t dimensions) {
  if (dimensions == 3) {
    conv.tensors["weight"] = conv.tensors["weight"].unsqueeze(2);
    add_between(lowering, std::move(conv), node->input(0), node->output(),
                engine::MoveKind::reshape, {-2, -3, 1, -4}, {-2, -3, -5});
  } else {
    lowering.add_node(std::move(conv), node->output(), std::nullopt);
  }
}

// What a transposed convolution with groups makes of a weight whose output channels come first.
at::Tensor input_channels_first(const at::Tensor& weight, int64_t groups) {
  return weight.unflatten(0, {groups, -1}).transpose(1, 2).flatten(0, 1);
}

// The fake-quantized weight behind what a transposed convolution takes: its output channels come
// first, those of the convolution's second in each group. nullptr where it is not that.
jit::Value* find_transposed_weight(Lowering& lowering, jit::Value* taken, int64_t groups) {
  jit::Value* value = taken;
  const auto kind = [&] { return std::string_view(value->node()->kind().toQualString()); };
  while (kind() == "aten::transpose" || kind() == "aten::flatten" || kind() == "aten::unflatten") {
    value = value->node()->input(0);
  }
  const auto whole = lowering.constant(taken);
  const auto weight = lowering.constant(value);
  const bool holds = whole && weight && weight->isTensor() && weight->toTensor().dim() > 1 &&
                     weight->toTensor().size(0) % groups == 0;
  if (!holds) return nullptr;
  return input_channels_first(weight->toTensor(), groups).equal(whole->toTensor()) ? value
                                                                                   : nullptr;
}

std::string lower_transposed(Lowering& lowering, jit::Node* node) {
  const auto taken = lowering.constant(node->input(1));
  if (!taken || !taken->isTensor()) return "weight depends on the input";
  const int64_t dimensions = taken->toTensor().dim();
  if (dimensions < 3 || dimensions > 5) return "has not one to three spatial dimensions";
  const auto rank = static_cast<size_t>(dimensions) - 2;
  const auto groups = lowering.ints(node->input(8));
  const auto stride = spatial(lowering, node->input(3), rank, 1);
  const auto padding = spatial(lowering, node->input(4), rank, 0);
  const auto dilation = spatial(lowering, node->input(5), rank, 1);
  const auto output_padding = spatial(lowering, node->input(7), rank, 0);
  if (!groups || !stride || !padding || !dilation || !output_padding) {
    return "stride, padding, dilation or groups depend on the input";
  }
  if (!has_dimensions(lowering, node->input(0), static_cast<size_t>(dimensions))) {
    return "input has no batch dimension";
  }
  jit::Value* weight = find_transposed_weight(lowering, node->input(1), (*groups)[0]);
  if (!weight) return "weight is not fake-quantized by output channel";
  engine::Node conv{.op = dimensions == 5 ? "conv_transpose3d" : "conv_transpose2d"};
  conv.ints = {{"stride", *stride},
               {"padding", *padding},
               {"dilation", *dilation},
               {"output_padding", *output_padding},
               {"groups", *groups}};
  const std::string reason =
      lower_layer(lowering, node->input(0), weight, node->input(2), dimensions, conv);
  if (reason.empty()) add_convolution(lowering, std::move(conv), node, dimensions);
  return reason;
}

}  // namespace

std::string lower_convolution(Lowering& lowering, jit::Node* node) {
  const std::string_view kind = node->kind().toQualString();
  const bool general = kind == "aten::_convolution";
  if (general) {
    const auto transposed = lowering.constant(node->input(6));
    if (!transposed) return "whether it is transposed depends on the input";
    if (transposed->toBool()) return lower_transposed(lowering, node);
  }
  const auto weight = lowering.constant(node->input(1));
  if (!weight || !weight->isTensor()) return "weight depends on the input";
  const int64_t dimensions = weight->toTensor().dim();
  if (dimensions < 3 || dimensions > 5) return "has not one to three spatial dimensions";
  if (!has_dimensions(lowering, node->input(0), static_cast<size_t>(dimensions))) {
    return "input has no batch dimension";
  }
  const auto spatial_dimensions = static_cast<size_t>(dimensions) - 2;
  const auto stride = spatial(lowering, node->input(3), spatial_dimensions, 1);
  const auto dilation = spatial(lowering, node->input(5), spatial_dimensions, 1);
  const auto groups = lowering.ints(node->input(general ? 8 : 6));
  if (!stride || !dilation || !groups) return "stride, dilation or groups depend on the input";
  const auto pads =
      padding(lowering, node->input(4), weight->toTensor().sizes().slice(2), *dilation);
  if (!pads) return "padding depends on the input";

  engine::Node conv{.op = dimensions == 5 ? "conv3d" : "conv2d"};
  conv.ints = {
      {"stride", *stride}, {"dilation", *dilation}, {"padding", *pads}, {"groups", *groups}};
  const std::string reason =
      lower_layer(lowering, node->input(0), node->input(1), node->input(2), dimensions, conv);
  if (reason.empty()) add_convolution(lowering, std::move(conv), node, dimensions);
  return reason;
}

std::string lower_linear(Lowering& lowering, jit::Node* node) {
  if (is_dynamic(node->input(0))) return lower_dynamic_linear(lowering, node);
  const auto* sizes = lowering.sizes(node->input(0));
  if (!sizes) return "its input's dimensions are not known";
  engine::Node linear{.op = "linear"};
  const std::string reason =
      lower_layer(lowering, node->input(0), node->input(1), node->input(2), 2, linear);
  if (!reason.empty()) return reason;
  if (!engine::is_image(sizes->size())) {
    lowering.add_node(std::move(linear), node->output(), std::nullopt);
    return "";
  }
  // The last dimension of an image lies apart in memory; as channels, its elements do not.
  const bool is_volume = sizes->size() == 5;
  const std::vector<int64_t> ones(is_volume ? 3 : 2, 1);
  linear.op = is_volume ? "conv3d" : "conv2d";
  linear.ints = {{"stride", ones},
                 {"dilation", ones},
                 {"padding", std::vector<int64_t>(2 * ones.size(), 0)},
                 {"groups", {1}}};
  at::Tensor& weight = linear.tensors["weight"];
  for (size_t d = 0; d < ones.size(); ++d) weight = weight.unsqueeze(-1);
  add_as_pixels(lowering, std::move(linear), node->input(0), node->output(), sizes->size());
  return "";
}

}  // namespace qatx::torchscript
