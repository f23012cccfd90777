#pragma once

#include <cmath>
#include <limits>

namespace qatx {

// Scales are positive, normal, and have a normal reciprocal, so that neither x * inv_scale nor q *
// scale meets a denormal and flush-to-zero modes cannot change a result.
inline constexpr float kMinScale = std::numeric_limits<float>::min();         // 2^-126
inline constexpr float kMaxScale = 1.0f / std::numeric_limits<float>::min();  // 2^126

inline bool is_valid_scale(float scale) { return scale >= kMinScale && scale <= kMaxScale; }

// The zero point in use: the nearest integer (ties to even) in [quant_min, quant_max]. Every path,
// forward and backward, goes through here. The caller rejects NaN.
inline float round_zero_point(float zero_point, float quant_min, float quant_max) {
  const float rounded = std::nearbyint(zero_point);
  return rounded < quant_min ? quant_min : rounded > quant_max ? quant_max : rounded;
}

}  // namespace qatx
