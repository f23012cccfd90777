#pragma once

#include <ATen/core/Tensor.h>
#include <c10/macros/Export.h>

namespace qatx::ptq {

// Factors by which the channels of a value may be divided where it is made, and the weights that
// read it multiplied, without a change of what is computed. Arguments are magnitudes for each
// channel, one-dimensional tensors of one size; results are float64, positive and finite: 1 where a
// magnitude is 0, and within 2^-32 .. 2^32.

// sqrt(made / read) of the largest weights that make and read a channel: afterwards both are alike
// (Nagel et al. 2019, arXiv 1906.04721, equation 11).
C10_EXPORT at::Tensor equalization_scales(const at::Tensor& made, const at::Tensor& read);

// value^alpha / read^(1 - alpha) of a channel's largest value and the largest weight that reads it:
// moves the difficulty of quantization from values to weights (Xiao et al. 2022, arXiv 2211.10438,
// equation 4). alpha: 0 to 1.
C10_EXPORT at::Tensor migration_scales(const at::Tensor& value, const at::Tensor& read,
                                       double alpha);

}  // namespace qatx::ptq
