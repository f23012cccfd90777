#include <string_view>

#include "qatx/convert/rules/arguments.h"
#include "qatx/convert/rules/layer.h"
#include "qatx/convert/rules/rules.h"
#include "qatx/convert/rules/sizes.h"
#include "qatx/engine/moves.h"

namespace qatx::torchscript {
namespace {

namespace jit = torch::jit;

// One number for each spatial dimension of a convolution, of which there are one or two; as two: a
// line is an image of height 1. `height` is what that takes.
std::optional<std::vector<int64_t>> spatial(Lowering& lowering, const jit::Value* value,
                                            bool is_line, int64_t height) {
  const auto numbers = lowering.ints(value);
  if (!is_line) return pair(lowering, value);
  if (!numbers || numbers->size() != 1) return std::nullopt;
  return std::vector<int64_t>{height, (*numbers)[0]};
}

// top, left, bottom, right; "same" puts the odd pixel at the end, as PyTorch does.
std::optional<std::vector<int64_t>> padding(Lowering& lowering, const jit::Value* value,
                                            const at::IntArrayRef kernel,
                                            const std::vector<int64_t>& dilation) {
  const bool is_line = kernel.size() == 1;
  if (const auto mode = lowering.constant(value); mode && mode->isString()) {
    if (mode->toStringRef() == "valid") return std::vector<int64_t>(4, 0);
    const int64_t vertical = is_line ? 0 : dilation[0] * (kernel[0] - 1);
    const int64_t horizontal = dilation[1] * (kernel.back() - 1);
    return std::vector<int64_t>{vertical / 2, horizontal / 2, vertical - vertical / 2,
                                horizontal - horizontal / 2};
  }
  const auto sides = spatial(lowering, value, is_line, 0);
  if (!sides) return std::nullopt;
  return std::vector<int64_t>{(*sides)[0], (*sides)[1], (*sides)[0], (*sides)[1]};
}

// The layer `node` reads its input through moves, and its result goes through others: lines as
// images of height 1, rows of four dimensions as the pixels of an image.
void add_between(Lowering& lowering, engine::Node node, jit::Value* input, jit::Value* output,
                 engine::MoveKind kind, const std::vector<int64_t>& before,
                 const std::vector<int64_t>& behind) {
  engine::Node raise{.op = "move", .inputs = {node.inputs[0]}};
  engine::add_move(raise.ints["steps"], kind, before);
  node.inputs[0] = add_inner(lowering, std::move(raise), lowering.codes(input));
  node.name = output->node()->scopeName();
  engine::Node lower{.op = "move"};
  engine::add_move(lower.ints["steps"], kind, behind);
  lower.inputs = {add_inner(lowering, std::move(node), std::nullopt)};
  lowering.add_node(std::move(lower), output, std::nullopt);
}

// weight stands with its input channels first, as quantized by output channel: transposed, that is
// transpose(fake_quantize(transpose(weight))).
std::string lower_transposed(Lowering& lowering, jit::Node* node) {
  const auto groups = lowering.ints(node->input(8));
  const auto stride = pair(lowering, node->input(3));
  const auto padding = pair(lowering, node->input(4));
  const auto dilation = pair(lowering, node->input(5));
  const auto output_padding = pair(lowering, node->input(7));
  if (!groups || !stride || !padding || !dilation || !output_padding) {
    return "stride, padding, dilation or groups depend on the input";
  }
  if ((*groups)[0] != 1) return "is transposed and has groups";
  if (!has_dimensions(lowering, node->input(0), 4)) return "is transposed and not two-dimensional";
  jit::Node* transpose = node->input(1)->node();
  if (std::string_view(transpose->kind().toQualString()) != "aten::transpose" ||
      lowering.ints(transpose->input(1)) != std::vector<int64_t>{0} ||
      lowering.ints(transpose->input(2)) != std::vector<int64_t>{1}) {
    return "weight is not fake-quantized by output channel";
  }
  engine::Node conv{.op = "conv_transpose2d"};
  conv.ints = {{"stride", *stride},
               {"padding", *padding},
               {"dilation", *dilation},
               {"output_padding", *output_padding}};
  const std::string reason =
      lower_layer(lowering, node->input(0), transpose->input(0), node->input(2), 4, conv);
  if (reason.empty()) lowering.add_node(std::move(conv), node->output(), std::nullopt);
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
  const bool is_line = dimensions == 3;
  if (!is_line && dimensions != 4) return "has not one or two spatial dimensions";
  if (!has_dimensions(lowering, node->input(0), static_cast<size_t>(dimensions))) {
    return "input has no batch dimension";
  }
  const auto stride = spatial(lowering, node->input(3), is_line, 1);
  const auto dilation = spatial(lowering, node->input(5), is_line, 1);
  const auto groups = lowering.ints(node->input(general ? 8 : 6));
  if (!stride || !dilation || !groups) return "stride, dilation or groups depend on the input";
  const auto pads =
      padding(lowering, node->input(4), weight->toTensor().sizes().slice(2), *dilation);
  if (!pads) return "padding depends on the input";

  engine::Node conv{.op = "conv2d"};
  conv.ints = {
      {"stride", *stride}, {"dilation", *dilation}, {"padding", *pads}, {"groups", *groups}};
  const std::string reason =
      lower_layer(lowering, node->input(0), node->input(1), node->input(2), dimensions, conv);
  if (!reason.empty()) return reason;
  if (is_line) {
    conv.tensors["weight"] = conv.tensors["weight"].unsqueeze(2);
    add_between(lowering, std::move(conv), node->input(0), node->output(),
                engine::MoveKind::reshape, {-2, -3, 1, -4}, {-2, -3, -5});
  } else {
    lowering.add_node(std::move(conv), node->output(), std::nullopt);
  }
  return "";
}

std::string lower_linear(Lowering& lowering, jit::Node* node) {
  if (!lowering.sizes(node->input(0))) return "its input's dimensions are not known";
  const bool is_image = has_dimensions(lowering, node->input(0), 4);
  engine::Node linear{.op = "linear"};
  const std::string reason =
      lower_layer(lowering, node->input(0), node->input(1), node->input(2), 2, linear);
  if (!reason.empty()) return reason;
  if (is_image) {
    // The last dimension of an image lies apart in memory; as channels, its elements do not.
    linear.op = "conv2d";
    linear.ints = {
        {"stride", {1, 1}}, {"dilation", {1, 1}}, {"padding", {0, 0, 0, 0}}, {"groups", {1}}};
    linear.tensors["weight"] = linear.tensors["weight"].unsqueeze(2).unsqueeze(3);
    add_between(lowering, std::move(linear), node->input(0), node->output(),
                engine::MoveKind::permute, {0, 3, 1, 2}, {0, 2, 3, 1});
  } else {
    lowering.add_node(std::move(linear), node->output(), std::nullopt);
  }
  return "";
}

}  // namespace qatx::torchscript
