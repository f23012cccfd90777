#pragma once

#include <ATen/core/Tensor.h>
#include <c10/macros/Export.h>

namespace qatx {

// The parameterisation of a learned scale: whatever an optimizer does to `raw`, the scale in use
// stays valid.
//   scale = clamp(|raw|, 2^-64, 2^64), NaN -> 2^-64;   draw = sign(raw) * dscale  (sign(0) = 1;
//   non-finite -> 0)
// A step across zero is reflected, so a scale can neither vanish nor change sign, and the published
// LSQ gradients and learning rates hold unchanged where raw is positive. float32, any shape.
C10_EXPORT at::Tensor learned_scale(const at::Tensor& raw);

}  // namespace qatx
