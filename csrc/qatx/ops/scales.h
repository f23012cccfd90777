#pragma once

#include <ATen/core/Tensor.h>
#include <c10/macros/Export.h>

namespace qatx {

// The parameterisation of a learned scale: whatever an optimizer does to `raw`, the scale in use
// stays valid.
//   scale = clamp(|raw|, 2^-64, 2^64), NaN -> 2^-64;   draw = sign(raw) * dscale  (sign(0) = 1;
//   non-finite -> 0)
// A step across zero is reflected, so a scale can neither vanish nor change sign, and the published
// LSQ gradients and learning rates hold unchanged where raw is positive. float32 or float64, any
// shape.
C10_EXPORT at::Tensor learned_scale(const at::Tensor& raw);

// draw for the gradient `grad` of the scale; grad is like raw.
C10_EXPORT at::Tensor learned_scale_backward(const at::Tensor& grad, const at::Tensor& raw);

// The power of two whose exponent is nearest to that of a scale, 2^rint(log2(scale)), so that
// requantization is a shift. The gradient goes straight through the rounding of the exponent:
// dscale = dresult * result / scale  (arXiv 1903.08066, which rounds the exponent up). float32 or
// float64, any shape, positive and normal: what else comes in is no valid scale when it comes out.
C10_EXPORT at::Tensor power_of_two_scale(const at::Tensor& scale);

}  // namespace qatx
