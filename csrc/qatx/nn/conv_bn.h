#pragma once

#include <torch/nn/modules/batchnorm.h>

#include "qatx/nn/conv.h"

namespace qatx::nn {

// Options of ConvBn2d: those of Conv2d (bias: whether the convolution has one of its own, before
// the normalization; default: no) and of torch::nn::BatchNorm2d.
struct C10_EXPORT ConvBn2dOptions : LayerOptions<ConvBn2dOptions> {
  using padding_t = Conv2dOptions::padding_t;

  ConvBn2dOptions(int64_t in_channels, int64_t out_channels, torch::ExpandingArray<2> kernel_size)
      : in_channels_(in_channels), out_channels_(out_channels), kernel_size_(kernel_size) {}

  TORCH_ARG(int64_t, in_channels);
  TORCH_ARG(int64_t, out_channels);
  TORCH_ARG(torch::ExpandingArray<2>, kernel_size);
  TORCH_ARG(torch::ExpandingArray<2>, stride) = 1;
  TORCH_ARG(padding_t, padding) = 0;
  TORCH_ARG(torch::ExpandingArray<2>, dilation) = 1;
  TORCH_ARG(int64_t, groups) = 1;
  TORCH_ARG(bool, bias) = false;
  TORCH_ARG(double, eps) = 1e-5;
  TORCH_ARG(std::optional<double>, momentum) = 0.1;
  TORCH_ARG(bool, affine) = true;

 public:
  torch::nn::detail::ConvNdOptions<2> torch_options() const;
  torch::nn::BatchNormOptions bn_options() const;
};

// A convolution with the batch normalization after it folded into its quantized weight, then an
// optional ReLU (settings.relu), then a quantized output.
//
// What is quantized is weight * gamma / sqrt(running_var + eps), the weight that is deployed (arXiv
// 1806.08342, section 3.2.2). In training the result is scaled back and normalized with the
// statistics of the batch. In evaluation, and in training once batch_norm_frozen is set, the layer
// is one convolution with the folded weight and bias.
//
// Takes float32 [N, Cin, H, W], returns float32 [N, Cout, H', W'].
class C10_EXPORT ConvBn2dImpl : public detail::ConvImpl<2, ConvBn2dImpl> {
 public:
  static constexpr const char* kName = "ConvBn2d";

  ConvBn2dImpl(int64_t in_channels, int64_t out_channels, torch::ExpandingArray<2> kernel_size)
      : ConvBn2dImpl(ConvBn2dOptions(in_channels, out_channels, kernel_size)) {}
  explicit ConvBn2dImpl(const ConvBn2dOptions& options_);

  at::Tensor forward(const at::Tensor& input);
  void reset() override;
  void save(torch::serialize::OutputArchive& archive) const override;
  void load(torch::serialize::InputArchive& archive) override;
  void pretty_print(std::ostream& stream) const override;
  // Puts another normalization, with its parameters and statistics, in the place of bn.
  void take_over_bn(torch::nn::BatchNorm2d other);

  torch::nn::BatchNorm2d bn{nullptr};
  // Whether training uses the running statistics and leaves them alone.
  bool batch_norm_frozen = false;

 private:
  torch::nn::BatchNormOptions bn_options_;
};
TORCH_MODULE(ConvBn2d);

// The quantized twin of a convolution and the batch normalization behind it; takes over the
// parameters themselves. Throws c10::Error (ValueError) as for a convolution, and where bn does not
// fit or has no running statistics.
C10_EXPORT ConvBn2d from_float(const torch::nn::Conv2dImpl& conv, torch::nn::BatchNorm2d bn,
                               const LayerSettings& settings = {});

}  // namespace qatx::nn
