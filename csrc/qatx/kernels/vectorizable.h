#pragma once

#include "qatx/kernels/epilogue.h"

// The steps of the numeric contract written so that GCC turns loops over them into vector code of
// whatever instruction set a file is compiled for. __builtin_rintf because the functions of <cmath>
// are shared between files.

namespace qatx::kernels {
namespace {

inline float clamp(float y, float low, float high) {
  y = y < low ? low : y;
  return y > high ? high : y;
}

// NaN becomes the zero point.
inline int32_t quantize_one(float y, const QParams& qparams) {
  const float rounded = __builtin_rintf(y * qparams.inv_scale);
  const float q = (rounded == rounded ? rounded : 0.0f) + static_cast<float>(qparams.zero_point);
  return static_cast<int32_t>(
      clamp(q, static_cast<float>(qparams.quant_min), static_cast<float>(qparams.quant_max)));
}

inline float dequantize_one(int32_t q, int32_t zero_point, float scale) {
  return static_cast<float>(q - zero_point) * scale;
}

}  // namespace
}  // namespace qatx::kernels
