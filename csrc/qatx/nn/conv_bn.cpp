#include "qatx/nn/conv_bn.h"

#include <ATen/ops/rsqrt.h>
#include <ATen/ops/scalar_tensor.h>
#include <ATen/ops/where.h>
#include <torch/serialize/archive.h>

#include "qatx/nn/listener.h"

namespace qatx::nn {
namespace {

constexpr const char* kExtraState = "_extra_state";  // the key of Python's state_dict

// [C] as [C, 1, ...], with `dims` ones.
at::Tensor as_column(at::Tensor t, int dims) {
  while (dims-- > 0) t = t.unsqueeze(-1);
  return t;
}

}  // namespace

torch::nn::detail::ConvNdOptions<2> ConvBn2dOptions::torch_options() const {
  return Conv2dOptions(in_channels(), out_channels(), kernel_size())
      .stride(stride())
      .padding(padding())
      .dilation(dilation())
      .groups(groups())
      .bias(bias())
      .torch_options();
}

torch::nn::BatchNormOptions ConvBn2dOptions::bn_options() const {
  return torch::nn::BatchNormOptions(out_channels())
      .eps(eps())
      .momentum(momentum())
      .affine(affine());
}

ConvBn2dImpl::ConvBn2dImpl(const ConvBn2dOptions& options_)
    : ConvImpl(options_.torch_options(), options_.settings()), bn_options_(options_.bn_options()) {
  bn = register_module("bn", torch::nn::BatchNorm2d(bn_options_));
}

at::Tensor ConvBn2dImpl::forward(const at::Tensor& input) {
  return tell(*this, input, [&] {
    const auto convolve = [&](const at::Tensor& folded, const at::Tensor& shift) {
      return torch::nn::functional::detail::conv2d(input, folded, shift, options.stride(),
                                                   options.padding(), options.dilation(),
                                                   options.groups());
    };
    const bool affine = bn->options.affine();
    const bool use_batch_statistics = is_training() && !batch_norm_frozen;
    at::Tensor factor = at::rsqrt(bn->running_var + bn->options.eps());
    if (affine) {
      // The division below takes the factor back out: all of gamma's gradient but noise of rounding
      // comes from the normalization.
      factor = factor * (use_batch_statistics ? bn->weight.detach() : bn->weight);
    }
    const at::Tensor folded = weight_fake_quantize->forward(weight * as_column(factor, 3));
    if (use_batch_statistics) {
      // Where gamma is 0, so is the weight, and the channel is beta whatever it is divided by.
      at::Tensor y =
          convolve(folded, at::Tensor()) /
          as_column(at::where(factor == 0, at::scalar_tensor(1.0, factor.options()), factor), 2);
      if (bias.defined()) y = y + as_column(bias, 2);
      return finish(bn->forward(y));
    }
    at::Tensor shift = bias.defined() ? bias - bn->running_mean : -bn->running_mean;
    shift = shift * factor;
    if (affine) shift = shift + bn->bias;
    return finish(convolve(folded, shift));
  });
}

void ConvBn2dImpl::reset() {
  ConvImpl::reset();
  bn = register_module("bn", torch::nn::BatchNorm2d(bn_options_));
}

void ConvBn2dImpl::save(torch::serialize::OutputArchive& archive) const {
  ConvImpl::save(archive);
  archive.write(kExtraState, at::scalar_tensor(batch_norm_frozen, at::kBool), /*is_buffer=*/true);
}

void ConvBn2dImpl::load(torch::serialize::InputArchive& archive) {
  ConvImpl::load(archive);
  at::Tensor state;
  archive.read(kExtraState, state, /*is_buffer=*/true);
  batch_norm_frozen = state.item<bool>();
}

void ConvBn2dImpl::pretty_print(std::ostream& stream) const {
  ConvImpl::pretty_print(stream);
  stream << ", batch_norm_frozen=" << std::boolalpha << batch_norm_frozen;
}

void ConvBn2dImpl::take_over_bn(torch::nn::BatchNorm2d other) {
  TORCH_CHECK_VALUE(other->options.num_features() == options.out_channels(),
                    "ConvBn2d: bn must have the ", options.out_channels(),
                    " channels of the convolution, got ", other->options.num_features());
  TORCH_CHECK_VALUE(other->running_mean.defined() && other->running_var.defined(),
                    "ConvBn2d: bn must have running statistics (track_running_stats=True)");
  bn_options_ = other->options;
  bn = replace_module("bn", std::move(other));
}

ConvBn2d from_float(const torch::nn::Conv2dImpl& conv, torch::nn::BatchNorm2d bn,
                    const LayerSettings& settings) {
  const auto& options = conv.options;
  detail::check_convertible("ConvBn2d",
                            std::holds_alternative<torch::enumtype::kZeros>(options.padding_mode()),
                            conv.weight);
  const KeepRandomState keep;
  ConvBn2d layer(
      ConvBn2dOptions(options.in_channels(), options.out_channels(), options.kernel_size())
          .stride(options.stride())
          .padding(options.padding())
          .dilation(options.dilation())
          .groups(options.groups())
          .bias(options.bias())
          .qconfig(settings.qconfig)
          .relu(settings.relu)
          .quantize_output(settings.quantize_output));
  // Before anything is taken: it may be refused.
  const bool bn_training = bn->is_training();
  layer->take_over_bn(bn);
  layer->take_over(conv);
  bn->train(bn_training);
  return layer;
}

}  // namespace qatx::nn
