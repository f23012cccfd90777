#include <c10/util/Exception.h>

#include "qatx/engine/operators/gemm.h"
#include "qatx/engine/operators/gemm_input.h"
#include "qatx/engine/operators/operators.h"
#include "qatx/engine/operators/output.h"
#include "qatx/engine/operators/spatial.h"

namespace qatx::engine {
namespace {

// Where the taps of a dimension lie, counted from output * stride.
std::vector<int64_t> taps_of(const Spatial& spatial, size_t d) {
  std::vector<int64_t> taps;
  for (int64_t k = 0; k < spatial.kernel[d]; ++k) {
    taps.push_back(k * spatial.dilation[d] - spatial.padding[d]);
  }
  return taps;
}

// Convolution in two or three dimensions. Inputs: codes [N, C, (D,) H, W] and, when fused, a
// residual of the output's shape. Attributes: stride, dilation, padding, groups, clamp; tensors
// weight int8 [O, C / groups, (KD,) KH, KW], weight_scale [O], bias [O].
class Conv final : public Operator {
 public:
  Conv(const NodeReader& node, size_t dimensions) : name_(node.name()), output_(node) {
    node.check_input_count(1, 2);
    input_ = node.input(0);
    const auto dim = static_cast<int64_t>(dimensions) + 2;
    const LayerWeights all = read_layer_weights(node, dim);
    sizes_ = node.tensor("weight", at::kChar, dim).sizes().vec();
    out_channels_ = sizes_[0];
    groups_ = node.ints("groups", 1, 1, out_channels_)[0];
    TORCH_CHECK_VALUE(out_channels_ % groups_ == 0, "qatx program: convolution '", name_,
                      "': ", out_channels_, " output channels are no multiple of ", groups_,
                      " groups");
    in_channels_ = sizes_[1] * groups_;
    spatial_ = read_spatial(node, {sizes_.begin() + 2, sizes_.end()});
    if (node.input_count() == 2) output_.add_residual(node.input(1));
    if (groups_ == in_channels_ && groups_ == out_channels_ && groups_ > 1) {
      depthwise_ = std::make_unique<PackedDepthwise>(all, input_);
      return;
    }
    together_ = taps_together(taps_of(spatial_, dimensions - 1), spatial_.stride.back(),
                              in_channels_, groups_);
    const at::Tensor segments =
        all.weight.view({out_channels_, spatial_.taps() / together_, sizes_[1] * together_});
    gemm_ = std::make_unique<PackedGemm>(LayerWeights{segments, all.weight_scale, all.bias}, input_,
                                         groups_);
  }

  Shape output_shape(std::span<const Shape> inputs) const override {
    const Shape& in = inputs[0];
    check_image_shape(name_, in, spatial_.dimensions());
    TORCH_CHECK_VALUE(in[1] == in_channels_, "qatx program: convolution '", name_, "' takes ",
                      in_channels_, " channels, got an input of shape ", at::IntArrayRef(in));
    Shape out = spatial_.output_size(spatial_sizes(in));
    out.insert(out.begin(), {in[0], out_channels_});
    TORCH_CHECK_VALUE(!output_.has_residual() || inputs[1] == out, "qatx program: convolution '",
                      name_, "': what is added must have the shape of the output, ",
                      at::IntArrayRef(out), ", got ", at::IntArrayRef(inputs.back()));
    return out;
  }

  std::unique_ptr<Step> plan(std::span<const Shape> inputs) const override;

  int64_t best_pitch() const override { return gemm_ ? best_pitch_of(in_channels_) : 0; }
  std::unique_ptr<Step> plan_apart(std::span<const Shape> inputs, int64_t pitch) const override;

  std::optional<size_t> in_place(std::span<const Shape> /*inputs*/) const override {
    return gemm_ ? output_.in_place() : std::nullopt;
  }

  bool writes_apart() const override { return true; }

  int64_t weight_bytes() const override {
    return depthwise_ ? depthwise_->bytes() : gemm_->bytes();
  }
  std::vector<at::Tensor*> packed_weights() override {
    return depthwise_ ? depthwise_->packed() : gemm_->packed();
  }
  bool holds_weight() const override { return true; }
  at::Tensor weight() const override {
    return to_node_weight(depthwise_ ? depthwise_->unpack() : gemm_->unpack(), sizes_);
  }

 private:
  friend class ConvStep;
  friend class DepthwiseStep;

  std::string name_;
  Output output_;
  kernels::QParams input_{};
  Spatial spatial_{};
  Shape sizes_;  // of the weight
  int64_t in_channels_ = 0;
  int64_t out_channels_ = 0;
  int64_t groups_ = 1;
  int64_t together_ = 1;              // taps that make a segment
  std::unique_ptr<PackedGemm> gemm_;  // one of the two
  std::unique_ptr<PackedDepthwise> depthwise_;
};

class ConvStep final : public Step {
 public:
  ConvStep(const Conv& op, const Shape& in, const Shape& out, int64_t pitch)
      : op_(op),
        input_(op.name_, axes(op.spatial_, in, out), in[0], pitch, op.together_,
               static_cast<uint8_t>(op.input_.zero_point)) {
    input_.join_lines();
  }

  bool copies() const { return input_.copies(); }

  void run(std::span<const Buffer> inputs, Buffer output) const override {
    const int64_t channels = op_.out_channels_;
    run_product(input_, inputs[0].codes(), *op_.gemm_, [&](int64_t first_row) {
      return op_.output_.to_rows(inputs, output, channels, first_row);
    });
  }

 private:
  static std::array<Axis, 3> axes(const Spatial& spatial, const Shape& in, const Shape& out) {
    std::array<Axis, 3> axes;
    for (size_t d = 0; d < spatial.dimensions(); ++d) {
      axes[3 - spatial.dimensions() + d] = {in[d + 2], out[d + 2], spatial.stride[d],
                                            taps_of(spatial, d)};
    }
    return axes;
  }

  const Conv& op_;
  GemmInput input_;
};

class DepthwiseStep final : public Step {
 public:
  DepthwiseStep(const Conv& op, const Shape& in, const Shape& out)
      : op_(op),
        pad_(static_cast<size_t>(op.in_channels_ + kernels::kOverRead),
             static_cast<uint8_t>(op.input_.zero_point)),
        offsets_(window_offsets(op.spatial_, spatial_sizes(in), in[1], spatial_sizes(out))),
        image_stride_(in[1] * pixel_count(in)),
        pixels_(pixel_count(out)),
        rows_(out[0] * pixels_) {}

  void run(std::span<const Buffer> inputs, Buffer output) const override {
    const kernels::Window window{inputs[0].codes(),   image_stride_,   pixels_,
                                 op_.spatial_.taps(), offsets_.data(), pad_.data()};
    op_.depthwise_->run(window, rows_, op_.output_.to_rows(inputs, output, op_.out_channels_, 0));
  }

 private:
  const Conv& op_;
  std::vector<uint8_t> pad_;
  std::vector<int32_t> offsets_;
  int64_t image_stride_;
  int64_t pixels_;
  int64_t rows_;
};

std::unique_ptr<Step> Conv::plan(std::span<const Shape> inputs) const {
  if (depthwise_) {
    return std::make_unique<DepthwiseStep>(*this, inputs[0], output_shape(inputs));
  }
  return std::make_unique<ConvStep>(*this, inputs[0], output_shape(inputs), in_channels_);
}

std::unique_ptr<Step> Conv::plan_apart(std::span<const Shape> inputs, int64_t pitch) const {
  if (!gemm_ || together_ > 1) return nullptr;
  auto step = std::make_unique<ConvStep>(*this, inputs[0], output_shape(inputs), pitch);
  return step->copies() ? nullptr : std::move(step);
}

}  // namespace

std::unique_ptr<Operator> make_conv2d(const NodeReader& node) {
  return std::make_unique<Conv>(node, 2);
}

std::unique_ptr<Operator> make_conv3d(const NodeReader& node) {
  return std::make_unique<Conv>(node, 3);
}

}  // namespace qatx::engine
