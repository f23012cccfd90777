#pragma once

#include <c10/macros/Export.h>
#include <torch/arg.h>

#include <optional>
#include <string>

#include "qatx/core/quant_spec.h"

namespace qatx {

// How the numbers that a weight is quantized with come about.
enum class WeightQuantizer {
  kLsq,            // scales, and the zero points of asymmetric specs (LSQ+), are trained
  kFixed,          // calibration fixes them
  kMovingAverage,  // the range of the weight in each step
  kDoReFa,         // tanh and codes without a zero
};

// The same for values between layers.
enum class ActivationQuantizer {
  kLsq,
  kFixed,
  kMovingAverage,  // a moving average of the range
  kPact,           // a learned clipping point behind a ReLU or ReLU6, kLsq elsewhere
  kDynamic,        // linear layers quantize each row (token) that they read by its own range, which
                   // is found when it is there: symmetrically, with the bits of `activation`. What
                   // has no weight stays float in qatx::prepare, unless a convolution reads it;
                   // kLsq elsewhere
};

// What qatx::prepare and the modules of qatx::nn quantize with:
//   qatx::QConfig().weight(qatx::QuantSpec(4, true, true, 0)).power_of_two(true)
// What has no use is an error of the first module that is made with it (check()).
class C10_EXPORT QConfig {
 public:
  // Weights of convolutions and linear layers. The axis is 0 (a scale for each output channel) or
  // none (one for the tensor), or 1 with a group_size (along the input channels). Signed and
  // symmetric by default, because a zero point of 0 keeps the integer product free of correction
  // terms.
  TORCH_ARG(QuantSpec, weight) = QuantSpec(8, true, true, 0);
  // Values between layers; per tensor, because a layer sums over its input channels in integers.
  // Unsigned and asymmetric by default: after a ReLU no code is spent on negative numbers.
  TORCH_ARG(QuantSpec, activation) = QuantSpec(8, false, false);
  TORCH_ARG(WeightQuantizer, weight_quantizer) = WeightQuantizer::kLsq;
  TORCH_ARG(ActivationQuantizer, activation_quantizer) = ActivationQuantizer::kLsq;
  // How calibration chooses the range of weights, one of range_method_names(); nullopt: "lsq" for 4
  // bits and less, otherwise "min_max".
  TORCH_ARG(std::optional<std::string>, weight_range) = std::nullopt;
  // The same for activations, where qatx::calibrate is not told otherwise.
  TORCH_ARG(std::optional<std::string>, activation_range) = std::nullopt;
  // The scales of kLsq and kFixed are powers of two.
  TORCH_ARG(bool, power_of_two) = false;
  // kLsq and kFixed round stochastically in training.
  TORCH_ARG(bool, stochastic_rounding) = false;

 public:
  // Throws c10::Error (ValueError) where an axis or a range method is none of the above.
  void check() const;
};

}  // namespace qatx
