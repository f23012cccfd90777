#pragma once

#include <ATen/core/Tensor.h>
#include <c10/macros/Export.h>

namespace qatx {

// The parameterisation of a learned zero point: whatever an optimizer does to `raw`, it stays a
// number, which fake_quantize rounds and clamps to the codes.
//   zero_point = raw, NaN -> 0;   draw = dzero_point, non-finite -> 0
// Floating point, any shape.
C10_EXPORT at::Tensor learned_zero_point(const at::Tensor& raw);

}  // namespace qatx
