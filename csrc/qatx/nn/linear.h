#pragma once

#include <torch/nn/modules/linear.h>

#include "qatx/nn/layer.h"

namespace qatx::nn {

// Options of Linear: those of torch::nn, and LayerOptions.
struct C10_EXPORT LinearOptions : LayerOptions<LinearOptions> {
  LinearOptions(int64_t in_features, int64_t out_features)
      : in_features_(in_features), out_features_(out_features) {}

  TORCH_ARG(int64_t, in_features);
  TORCH_ARG(int64_t, out_features);
  TORCH_ARG(bool, bias) = true;
};

// torch::nn::Linear with a quantized weight, then an optional ReLU, then a quantized output.
//
// Takes float32 [..., in_features], whose values should be quantized already, by the layer that
// made them or by a QuantStub; but with ActivationQuantizer::kDynamic the layer quantizes each row
// that it reads itself (dynamic_fake_quantize). Returns float32 [..., out_features].
class C10_EXPORT LinearImpl : public torch::nn::Cloneable<LinearImpl>, public WeightedLayer {
 public:
  LinearImpl(int64_t in_features, int64_t out_features)
      : LinearImpl(LinearOptions(in_features, out_features)) {}
  explicit LinearImpl(LinearOptions options_);

  at::Tensor forward(const at::Tensor& input);
  // Whether the layer quantizes what it reads.
  bool is_dynamic() const;
  void reset() override;
  // As torch::nn::Linear does: uniform within 1 / sqrt(in_features).
  void reset_parameters();
  void pretty_print(std::ostream& stream) const override;
  // Takes the parameters of `source` themselves, its device and mode.
  void take_over(const torch::nn::LinearImpl& source);

  LinearOptions options;
  at::Tensor weight;
  at::Tensor bias;

 private:
  int64_t dynamic_quant_max() const;
};
TORCH_MODULE(Linear);

// The quantized twin of a float layer: it takes over the parameters themselves, the device and the
// mode. Throws c10::Error (ValueError) where the layer is not float32.
C10_EXPORT Linear from_float(const torch::nn::LinearImpl& linear,
                             const LayerSettings& settings = {});

}  // namespace qatx::nn
