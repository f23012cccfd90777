#include "qatx/nn/conv.h"

#include <ATen/ops/conv_transpose1d.h>
#include <ATen/ops/conv_transpose2d.h>
#include <ATen/ops/conv_transpose3d.h>

#include "qatx/nn/listener.h"

namespace qatx::nn {
namespace detail {

at::Tensor exchange_channels(const at::Tensor& weight, int64_t groups) {
  if (groups == 1) return weight.transpose(0, 1);
  return weight.unflatten(0, {groups, -1}).transpose(1, 2).flatten(0, 1);
}

void check_convertible(const char* name, bool pads_with_zeros, const at::Tensor& weight) {
  TORCH_CHECK_VALUE(pads_with_zeros, name, ": padding_mode must be 'zeros'");
  TORCH_CHECK_VALUE(weight.scalar_type() == at::kFloat, name, ": the weight must be float32, got ",
                    weight.scalar_type());
}

}  // namespace detail

namespace {

template <size_t D>
bool pads_with_zeros(const torch::nn::detail::ConvNdOptions<D>& options) {
  return std::holds_alternative<torch::enumtype::kZeros>(options.padding_mode());
}

// Those of `made` and of a float layer that both kinds of convolutions have.
template <size_t D, class Options>
Options shared_options(Options made, const torch::nn::detail::ConvNdOptions<D>& options,
                       const LayerSettings& settings) {
  return made.stride(options.stride())
      .dilation(options.dilation())
      .groups(options.groups())
      .bias(options.bias())
      .qconfig(settings.qconfig)
      .relu(settings.relu)
      .quantize_output(settings.quantize_output);
}

template <size_t D>
ConvOptions<D> conv_options(const torch::nn::detail::ConvNdOptions<D>& options,
                            const LayerSettings& settings) {
  const ConvOptions<D> made(options.in_channels(), options.out_channels(), options.kernel_size());
  return shared_options(made, options, settings).padding(options.padding());
}

template <size_t D>
ConvTransposeOptions<D> conv_transpose_options(const torch::nn::detail::ConvNdOptions<D>& options,
                                               const LayerSettings& settings) {
  const ConvTransposeOptions<D> made(options.in_channels(), options.out_channels(),
                                     options.kernel_size());
  return shared_options(made, options, settings)
      .padding(std::get<torch::ExpandingArray<D>>(options.padding()))
      .output_padding(options.output_padding());
}

template <class Layer, class Float, class Options>
Layer make_twin(const Float& conv, const LayerSettings& settings, const Options& options_of) {
  detail::check_convertible(Layer::ContainedType::kName, pads_with_zeros(conv.options),
                            conv.weight);
  const KeepRandomState keep;
  Layer layer(options_of(conv.options, settings));
  layer->take_over(conv);
  return layer;
}

// What at::conv_transpose*d makes of the layer's quantized weight.
template <size_t D, class Layer, class F>
at::Tensor multiply_transposed(Layer& layer, const at::Tensor& input, const F& conv_transpose) {
  const auto& options = layer.options;
  const at::Tensor weight = detail::exchange_channels(layer.weight, options.groups());
  return conv_transpose(
      input,
      detail::exchange_channels(layer.weight_fake_quantize->forward(weight), options.groups()),
      layer.bias, options.stride(), std::get<torch::ExpandingArray<D>>(options.padding()),
      options.output_padding(), options.groups(), options.dilation());
}

}  // namespace

Conv1dImpl::Conv1dImpl(const Conv1dOptions& options_)
    : ConvImpl(options_.torch_options(), options_.settings()) {}

at::Tensor Conv1dImpl::forward(const at::Tensor& input) {
  return tell(*this, input, [&] {
    return finish(torch::nn::functional::detail::conv1d(
        input, weight_fake_quantize->forward(weight), bias, options.stride(), options.padding(),
        options.dilation(), options.groups()));
  });
}

Conv2dImpl::Conv2dImpl(const Conv2dOptions& options_)
    : ConvImpl(options_.torch_options(), options_.settings()) {}

at::Tensor Conv2dImpl::forward(const at::Tensor& input) {
  return tell(*this, input, [&] {
    return finish(torch::nn::functional::detail::conv2d(
        input, weight_fake_quantize->forward(weight), bias, options.stride(), options.padding(),
        options.dilation(), options.groups()));
  });
}

Conv3dImpl::Conv3dImpl(const Conv3dOptions& options_)
    : ConvImpl(options_.torch_options(), options_.settings()) {}

at::Tensor Conv3dImpl::forward(const at::Tensor& input) {
  return tell(*this, input, [&] {
    return finish(torch::nn::functional::detail::conv3d(
        input, weight_fake_quantize->forward(weight), bias, options.stride(), options.padding(),
        options.dilation(), options.groups()));
  });
}

ConvTranspose1dImpl::ConvTranspose1dImpl(const ConvTranspose1dOptions& options_)
    : ConvImpl(options_.torch_options(), options_.settings()) {}

at::Tensor ConvTranspose1dImpl::forward(const at::Tensor& input) {
  return tell(*this, input, [&] {
    return finish(multiply_transposed<1>(
        *this, input, [](auto&&... arguments) { return at::conv_transpose1d(arguments...); }));
  });
}

ConvTranspose2dImpl::ConvTranspose2dImpl(const ConvTranspose2dOptions& options_)
    : ConvImpl(options_.torch_options(), options_.settings()) {}

at::Tensor ConvTranspose2dImpl::forward(const at::Tensor& input) {
  return tell(*this, input, [&] {
    return finish(multiply_transposed<2>(
        *this, input, [](auto&&... arguments) { return at::conv_transpose2d(arguments...); }));
  });
}

ConvTranspose3dImpl::ConvTranspose3dImpl(const ConvTranspose3dOptions& options_)
    : ConvImpl(options_.torch_options(), options_.settings()) {}

at::Tensor ConvTranspose3dImpl::forward(const at::Tensor& input) {
  return tell(*this, input, [&] {
    return finish(multiply_transposed<3>(
        *this, input, [](auto&&... arguments) { return at::conv_transpose3d(arguments...); }));
  });
}

Conv1d from_float(const torch::nn::Conv1dImpl& conv, const LayerSettings& settings) {
  return make_twin<Conv1d>(conv, settings, conv_options<1>);
}

Conv2d from_float(const torch::nn::Conv2dImpl& conv, const LayerSettings& settings) {
  return make_twin<Conv2d>(conv, settings, conv_options<2>);
}

Conv3d from_float(const torch::nn::Conv3dImpl& conv, const LayerSettings& settings) {
  return make_twin<Conv3d>(conv, settings, conv_options<3>);
}

ConvTranspose1d from_float(const torch::nn::ConvTranspose1dImpl& conv,
                           const LayerSettings& settings) {
  return make_twin<ConvTranspose1d>(conv, settings, conv_transpose_options<1>);
}

ConvTranspose2d from_float(const torch::nn::ConvTranspose2dImpl& conv,
                           const LayerSettings& settings) {
  return make_twin<ConvTranspose2d>(conv, settings, conv_transpose_options<2>);
}

ConvTranspose3d from_float(const torch::nn::ConvTranspose3dImpl& conv,
                           const LayerSettings& settings) {
  return make_twin<ConvTranspose3d>(conv, settings, conv_transpose_options<3>);
}

}  // namespace qatx::nn
