#include <c10/util/Exception.h>

#include "qatx/engine/operators/gemm.h"
#include "qatx/engine/operators/operators.h"
#include "qatx/engine/operators/output.h"
#include "qatx/engine/operators/spatial.h"

namespace qatx::engine {
namespace {

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
    const at::Tensor weight = node.tensor("weight", at::kChar, dim);
    out_channels_ = weight.size(0);
    groups_ = node.ints("groups", 1, 1, out_channels_)[0];
    TORCH_CHECK_VALUE(out_channels_ % groups_ == 0, "qatx program: convolution '", name_,
                      "': ", out_channels_, " output channels are no multiple of ", groups_,
                      " groups");
    in_channels_ = weight.size(1) * groups_;
    spatial_ = read_spatial(node, weight.sizes().slice(2).vec());
    if (node.input_count() == 2) output_.add_residual(node.input(1));
    if (groups_ == in_channels_ && groups_ == out_channels_ && groups_ > 1) {
      depthwise_ = std::make_unique<PackedDepthwise>(all, input_);
      return;
    }
    const int64_t n = out_channels_ / groups_;
    for (int64_t g = 0; g < groups_; ++g) {
      gemms_.emplace_back(LayerWeights{all.weight.narrow(0, g * n, n).contiguous(),
                                       all.weight_scale.narrow(0, g * n, n).contiguous(),
                                       all.bias.narrow(0, g * n, n).contiguous()},
                          input_);
    }
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

 private:
  friend class ConvStep;

  std::string name_;
  Output output_;
  kernels::QParams input_{};
  Spatial spatial_{};
  int64_t in_channels_ = 0;
  int64_t out_channels_ = 0;
  int64_t groups_ = 1;
  std::vector<PackedGemm> gemms_;  // one for each group; empty when depthwise
  std::unique_ptr<PackedDepthwise> depthwise_;
};

class ConvStep final : public Step {
 public:
  ConvStep(const Conv& op, const Shape& in, const Shape& out)
      : op_(op),
        pad_(static_cast<size_t>(op.in_channels_ + kernels::kOverRead),
             static_cast<uint8_t>(op.input_.zero_point)),
        offsets_(window_offsets(op.spatial_, spatial_sizes(in), in[1], spatial_sizes(out))),
        image_stride_(in[1] * pixel_count(in)),
        pixels_(pixel_count(out)),
        rows_(out[0] * pixels_) {}

  void run(std::span<const Buffer> inputs, Buffer output) const override {
    kernels::Window window{inputs[0].codes(),   image_stride_,   pixels_,
                           op_.spatial_.taps(), offsets_.data(), pad_.data()};
    if (op_.depthwise_) {
      op_.depthwise_->run(window, rows_, op_.output_.to(inputs, output, op_.out_channels_));
      return;
    }
    const int64_t group_in = op_.in_channels_ / op_.groups_;
    const int64_t group_out = op_.out_channels_ / op_.groups_;
    int64_t offset = 0;
    for (const PackedGemm& gemm : op_.gemms_) {
      gemm.run(window, rows_, op_.output_.to(inputs, output, op_.out_channels_, offset));
      window.input += group_in;
      offset += group_out;
    }
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
  return std::make_unique<ConvStep>(*this, inputs[0], output_shape(inputs));
}

}  // namespace

std::unique_ptr<Operator> make_conv2d(const NodeReader& node) {
  return std::make_unique<Conv>(node, 2);
}

std::unique_ptr<Operator> make_conv3d(const NodeReader& node) {
  return std::make_unique<Conv>(node, 3);
}

}  // namespace qatx::engine
