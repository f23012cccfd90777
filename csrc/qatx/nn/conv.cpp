#include "qatx/nn/conv.h"

#include <ATen/ops/conv_transpose2d.h>

#include "qatx/nn/listener.h"

namespace qatx::nn {
namespace detail {

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

template <size_t D>
ConvOptions<D> options_of(const torch::nn::detail::ConvNdOptions<D>& options,
                          const LayerSettings& settings) {
  return ConvOptions<D>(options.in_channels(), options.out_channels(), options.kernel_size())
      .stride(options.stride())
      .padding(options.padding())
      .dilation(options.dilation())
      .groups(options.groups())
      .bias(options.bias())
      .qconfig(settings.qconfig)
      .relu(settings.relu)
      .quantize_output(settings.quantize_output);
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

torch::nn::detail::ConvNdOptions<2> ConvTranspose2dOptions::torch_options() const {
  return torch::nn::detail::ConvNdOptions<2>(in_channels(), out_channels(), kernel_size())
      .stride(stride())
      .padding(padding())
      .output_padding(output_padding())
      .dilation(dilation())
      .bias(bias())
      .transposed(true);
}

ConvTranspose2dImpl::ConvTranspose2dImpl(const ConvTranspose2dOptions& options_)
    : ConvImpl(options_.torch_options(), options_.settings()) {}

at::Tensor ConvTranspose2dImpl::forward(const at::Tensor& input) {
  return tell(*this, input, [&] {
    // The weight's output channels come second; its scales belong to them.
    const at::Tensor quantized =
        weight_fake_quantize->forward(weight.transpose(0, 1)).transpose(0, 1);
    return finish(at::conv_transpose2d(input, quantized, bias, options.stride(),
                                       std::get<torch::ExpandingArray<2>>(options.padding()),
                                       options.output_padding(), options.groups(),
                                       options.dilation()));
  });
}

Conv1d from_float(const torch::nn::Conv1dImpl& conv, const LayerSettings& settings) {
  detail::check_convertible("Conv1d", pads_with_zeros(conv.options), conv.weight);
  const KeepRandomState keep;
  Conv1d layer(options_of(conv.options, settings));
  layer->take_over(conv);
  return layer;
}

Conv2d from_float(const torch::nn::Conv2dImpl& conv, const LayerSettings& settings) {
  detail::check_convertible("Conv2d", pads_with_zeros(conv.options), conv.weight);
  const KeepRandomState keep;
  Conv2d layer(options_of(conv.options, settings));
  layer->take_over(conv);
  return layer;
}

Conv3d from_float(const torch::nn::Conv3dImpl& conv, const LayerSettings& settings) {
  detail::check_convertible("Conv3d", pads_with_zeros(conv.options), conv.weight);
  const KeepRandomState keep;
  Conv3d layer(options_of(conv.options, settings));
  layer->take_over(conv);
  return layer;
}

ConvTranspose2d from_float(const torch::nn::ConvTranspose2dImpl& conv,
                           const LayerSettings& settings) {
  const auto& options = conv.options;
  TORCH_CHECK_VALUE(options.groups() == 1, "ConvTranspose2d: groups must be 1, got ",
                    options.groups());
  detail::check_convertible("ConvTranspose2d", pads_with_zeros(options), conv.weight);
  const KeepRandomState keep;
  ConvTranspose2d layer(
      ConvTranspose2dOptions(options.in_channels(), options.out_channels(), options.kernel_size())
          .stride(options.stride())
          .padding(std::get<torch::ExpandingArray<2>>(options.padding()))
          .output_padding(options.output_padding())
          .dilation(options.dilation())
          .bias(options.bias())
          .qconfig(settings.qconfig)
          .relu(settings.relu)
          .quantize_output(settings.quantize_output));
  layer->take_over(conv);
  return layer;
}

}  // namespace qatx::nn
