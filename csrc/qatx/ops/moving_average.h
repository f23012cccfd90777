#pragma once

#include <ATen/core/Tensor.h>
#include <c10/macros/Export.h>

#include <cstdint>
#include <optional>
#include <tuple>

namespace qatx {

// Quantizes with a moving average of the range, updated by x first (arXiv 1712.05877, section 3.1):
//   running = running + averaging_constant * (range of x - running), or the range of x where there
//             was none yet (an infinity or NaN)
//   scale, zero_point = choose_qparams(running_min, running_max, ...)
//   y = fake_quantize(x, scale, zero_point, ...)
// Returns (y, running_min, running_max, scale, zero_point); nothing is changed in place.
//
// - x: as in fake_quantize. NaN and infinities are left out of the range; without any finite
// element
//   it is unchanged, and [0, 0] where there was none yet.
// - running_min, running_max: float32 (float64 where x is), one element (no axis) or
// [x.size(axis)];
//   +Inf and -Inf at the beginning. No gradient.
// - averaging_constant: 0 to 1; 0.01 is usual for activations, 1 (the range of x alone) for
// weights.
// - symmetric: as in QuantSpec.
//
// The gradient of x is that of fake_quantize.
C10_EXPORT std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor>
moving_average_fake_quantize(const at::Tensor& x, const at::Tensor& running_min,
                             const at::Tensor& running_max, double averaging_constant,
                             int64_t quant_min, int64_t quant_max, bool symmetric,
                             std::optional<int64_t> axis = std::nullopt);

}  // namespace qatx
