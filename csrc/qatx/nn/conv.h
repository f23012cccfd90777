#pragma once

#include <torch/nn/functional/conv.h>
#include <torch/nn/modules/conv.h>

#include <sstream>
#include <string>
#include <utility>

#include "qatx/nn/layer.h"

namespace qatx::nn {

// Options of Conv1d, Conv2d and Conv3d: those of torch::nn (padding is with zeros), and
// LayerOptions.
template <size_t D>
struct ConvOptions : LayerOptions<ConvOptions<D>> {
  using padding_t = torch::nn::detail::conv_padding_t<D>;

  ConvOptions(int64_t in_channels, int64_t out_channels, torch::ExpandingArray<D> kernel_size)
      : in_channels_(in_channels), out_channels_(out_channels), kernel_size_(kernel_size) {}

  TORCH_ARG(int64_t, in_channels);
  TORCH_ARG(int64_t, out_channels);
  TORCH_ARG(torch::ExpandingArray<D>, kernel_size);
  TORCH_ARG(torch::ExpandingArray<D>, stride) = 1;
  TORCH_ARG(padding_t, padding) = 0;
  TORCH_ARG(torch::ExpandingArray<D>, dilation) = 1;
  TORCH_ARG(int64_t, groups) = 1;
  TORCH_ARG(bool, bias) = true;

 public:
  torch::nn::detail::ConvNdOptions<D> torch_options() const {
    return torch::nn::detail::ConvNdOptions<D>(in_channels(), out_channels(), kernel_size())
        .stride(stride())
        .padding(padding())
        .dilation(dilation())
        .groups(groups())
        .bias(bias());
  }
};
using Conv1dOptions = ConvOptions<1>;
using Conv2dOptions = ConvOptions<2>;
using Conv3dOptions = ConvOptions<3>;

namespace detail {

// The weight of a transposed convolution, whose output channels come second in each group, with
// these first; or back.
C10_EXPORT at::Tensor exchange_channels(const at::Tensor& weight, int64_t groups);

// What all convolutions have in common. `options` are those of torch::nn.
template <size_t D, class Derived>
class C10_EXPORT ConvImpl : public torch::nn::ConvNdImpl<D, Derived>, public WeightedLayer {
 public:
  ConvImpl(torch::nn::detail::ConvNdOptions<D> options_, LayerSettings settings_)
      : torch::nn::ConvNdImpl<D, Derived>(std::move(options_)), WeightedLayer(settings_) {
    register_fake_quantizes();
  }

  void reset() override {
    torch::nn::ConvNdImpl<D, Derived>::reset();
    register_fake_quantizes();
  }

  void pretty_print(std::ostream& stream) const override {
    std::ostringstream torchs;
    torch::nn::ConvNdImpl<D, Derived>::pretty_print(torchs);
    const std::string text = std::move(torchs).str();
    stream << "qatx::nn::" << Derived::kName << text.substr(text.find('('));
    print_settings(stream);
  }

  // Takes the parameters of `source` themselves, so that tied weights stay tied, and its device and
  // mode.
  template <class Source>
  void take_over(const Source& source) {
    const torch::Device device = source.weight.device();
    weight_fake_quantize->to(device);
    if (output_fake_quantize) output_fake_quantize->to(device);
    this->parameters_["weight"] = this->weight = source.weight;
    if (source.bias.defined()) this->parameters_["bias"] = this->bias = source.bias;
    this->train(source.is_training());
  }

 private:
  void register_fake_quantizes() {
    // Scales belong to output channels.
    register_weight(*this, this->options.transposed()
                               ? exchange_channels(this->weight, this->options.groups()).sizes()
                               : this->weight.sizes());
    register_output();
  }
};

// Throws c10::Error (ValueError) where a layer of qatx::nn cannot take this one's place.
C10_EXPORT void check_convertible(const char* name, bool pads_with_zeros, const at::Tensor& weight);

}  // namespace detail

// torch::nn::Conv1d with a quantized weight, then an optional ReLU, then a quantized output.
//
// Takes float32 [N, Cin, L], whose values should be quantized already: by the layer that made them
// or by a QuantStub. Returns float32 [N, Cout, L'].
class C10_EXPORT Conv1dImpl : public detail::ConvImpl<1, Conv1dImpl> {
 public:
  static constexpr const char* kName = "Conv1d";

  Conv1dImpl(int64_t in_channels, int64_t out_channels, torch::ExpandingArray<1> kernel_size)
      : Conv1dImpl(Conv1dOptions(in_channels, out_channels, kernel_size)) {}
  explicit Conv1dImpl(const Conv1dOptions& options_);
  at::Tensor forward(const at::Tensor& input);
};
TORCH_MODULE(Conv1d);

// torch::nn::Conv2d with a quantized weight, then an optional ReLU, then a quantized output.
//
// Takes float32 [N, Cin, H, W], whose values should be quantized already: by the layer that made
// them or by a QuantStub. Returns float32 [N, Cout, H', W'].
class C10_EXPORT Conv2dImpl : public detail::ConvImpl<2, Conv2dImpl> {
 public:
  static constexpr const char* kName = "Conv2d";

  Conv2dImpl(int64_t in_channels, int64_t out_channels, torch::ExpandingArray<2> kernel_size)
      : Conv2dImpl(Conv2dOptions(in_channels, out_channels, kernel_size)) {}
  explicit Conv2dImpl(const Conv2dOptions& options_);
  at::Tensor forward(const at::Tensor& input);
};
TORCH_MODULE(Conv2d);

// torch::nn::Conv3d with a quantized weight, then an optional ReLU, then a quantized output.
//
// Takes float32 [N, Cin, D, H, W], whose values should be quantized already: by the layer that made
// them or by a QuantStub. Returns float32 [N, Cout, D', H', W'].
class C10_EXPORT Conv3dImpl : public detail::ConvImpl<3, Conv3dImpl> {
 public:
  static constexpr const char* kName = "Conv3d";

  Conv3dImpl(int64_t in_channels, int64_t out_channels, torch::ExpandingArray<3> kernel_size)
      : Conv3dImpl(Conv3dOptions(in_channels, out_channels, kernel_size)) {}
  explicit Conv3dImpl(const Conv3dOptions& options_);
  at::Tensor forward(const at::Tensor& input);
};
TORCH_MODULE(Conv3d);

// Options of ConvTranspose1d, ConvTranspose2d and ConvTranspose3d: those of torch::nn, and
// LayerOptions.
template <size_t D>
struct ConvTransposeOptions : LayerOptions<ConvTransposeOptions<D>> {
  ConvTransposeOptions(int64_t in_channels, int64_t out_channels,
                       torch::ExpandingArray<D> kernel_size)
      : in_channels_(in_channels), out_channels_(out_channels), kernel_size_(kernel_size) {}

  TORCH_ARG(int64_t, in_channels);
  TORCH_ARG(int64_t, out_channels);
  TORCH_ARG(torch::ExpandingArray<D>, kernel_size);
  TORCH_ARG(torch::ExpandingArray<D>, stride) = 1;
  TORCH_ARG(torch::ExpandingArray<D>, padding) = 0;
  TORCH_ARG(torch::ExpandingArray<D>, output_padding) = 0;
  TORCH_ARG(torch::ExpandingArray<D>, dilation) = 1;
  TORCH_ARG(int64_t, groups) = 1;
  TORCH_ARG(bool, bias) = true;

 public:
  torch::nn::detail::ConvNdOptions<D> torch_options() const {
    return torch::nn::detail::ConvNdOptions<D>(in_channels(), out_channels(), kernel_size())
        .stride(stride())
        .padding(padding())
        .output_padding(output_padding())
        .dilation(dilation())
        .groups(groups())
        .bias(bias())
        .transposed(true);
  }
};
using ConvTranspose1dOptions = ConvTransposeOptions<1>;
using ConvTranspose2dOptions = ConvTransposeOptions<2>;
using ConvTranspose3dOptions = ConvTransposeOptions<3>;

// torch::nn::ConvTranspose1d with a quantized weight, then an optional ReLU, then a quantized
// output.
//
// Takes float32 [N, Cin, L], whose values should be quantized already. Returns float32
// [N, Cout, L'].
class C10_EXPORT ConvTranspose1dImpl : public detail::ConvImpl<1, ConvTranspose1dImpl> {
 public:
  static constexpr const char* kName = "ConvTranspose1d";

  ConvTranspose1dImpl(int64_t in_channels, int64_t out_channels,
                      torch::ExpandingArray<1> kernel_size)
      : ConvTranspose1dImpl(ConvTranspose1dOptions(in_channels, out_channels, kernel_size)) {}
  explicit ConvTranspose1dImpl(const ConvTranspose1dOptions& options_);
  at::Tensor forward(const at::Tensor& input);
};
TORCH_MODULE(ConvTranspose1d);

// torch::nn::ConvTranspose2d with a quantized weight, then an optional ReLU, then a quantized
// output.
//
// Takes float32 [N, Cin, H, W], whose values should be quantized already. Returns float32
// [N, Cout, H', W'].
class C10_EXPORT ConvTranspose2dImpl : public detail::ConvImpl<2, ConvTranspose2dImpl> {
 public:
  static constexpr const char* kName = "ConvTranspose2d";

  ConvTranspose2dImpl(int64_t in_channels, int64_t out_channels,
                      torch::ExpandingArray<2> kernel_size)
      : ConvTranspose2dImpl(ConvTranspose2dOptions(in_channels, out_channels, kernel_size)) {}
  explicit ConvTranspose2dImpl(const ConvTranspose2dOptions& options_);
  at::Tensor forward(const at::Tensor& input);
};
TORCH_MODULE(ConvTranspose2d);

// torch::nn::ConvTranspose3d with a quantized weight, then an optional ReLU, then a quantized
// output.
//
// Takes float32 [N, Cin, D, H, W], whose values should be quantized already. Returns float32
// [N, Cout, D', H', W'].
class C10_EXPORT ConvTranspose3dImpl : public detail::ConvImpl<3, ConvTranspose3dImpl> {
 public:
  static constexpr const char* kName = "ConvTranspose3d";

  ConvTranspose3dImpl(int64_t in_channels, int64_t out_channels,
                      torch::ExpandingArray<3> kernel_size)
      : ConvTranspose3dImpl(ConvTranspose3dOptions(in_channels, out_channels, kernel_size)) {}
  explicit ConvTranspose3dImpl(const ConvTranspose3dOptions& options_);
  at::Tensor forward(const at::Tensor& input);
};
TORCH_MODULE(ConvTranspose3d);

// The quantized twin of a float layer: it takes over the parameters themselves, the device and the
// mode. Throws c10::Error (ValueError) where the layer pads with something else than zeros or is
// not float32.
C10_EXPORT Conv1d from_float(const torch::nn::Conv1dImpl& conv, const LayerSettings& settings = {});
C10_EXPORT Conv2d from_float(const torch::nn::Conv2dImpl& conv, const LayerSettings& settings = {});
C10_EXPORT Conv3d from_float(const torch::nn::Conv3dImpl& conv, const LayerSettings& settings = {});
C10_EXPORT ConvTranspose1d from_float(const torch::nn::ConvTranspose1dImpl& conv,
                                      const LayerSettings& settings = {});
C10_EXPORT ConvTranspose2d from_float(const torch::nn::ConvTranspose2dImpl& conv,
                                      const LayerSettings& settings = {});
C10_EXPORT ConvTranspose3d from_float(const torch::nn::ConvTranspose3dImpl& conv,
                                      const LayerSettings& settings = {});

}  // namespace qatx::nn
