#pragma once

#include <cmath>

#include "qatx/kernels/epilogue.h"

namespace qatx::kernels::reference {
namespace {

// min(max(rint(y * inv_scale) + zero_point, quant_min), quant_max); NaN becomes zero_point.
inline uint8_t quantize(float y, const QParams& qparams) {
  if (std::isnan(y)) return static_cast<uint8_t>(qparams.zero_point);
  float q = std::rint(y * qparams.inv_scale) + static_cast<float>(qparams.zero_point);
  q = std::fmax(q, static_cast<float>(qparams.quant_min));
  q = std::fmin(q, static_cast<float>(qparams.quant_max));
  return static_cast<uint8_t>(q);
}

// The steps of Epilogue for the accumulator of row r, column c, whose result goes to element `out`.
inline void finish(int32_t acc, int64_t r, int64_t c, int64_t out, const Epilogue& epilogue) {
  float y = static_cast<float>(acc) * epilogue.scale[c] + epilogue.bias[c];
  if (epilogue.residual != nullptr) {
    const int32_t code = epilogue.residual[r * epilogue.residual_stride + c];
    y = y + static_cast<float>(code - epilogue.residual_zero_point) * epilogue.residual_scale;
  }
  y = y < epilogue.clamp_min ? epilogue.clamp_min : y;
  y = y > epilogue.clamp_max ? epilogue.clamp_max : y;
  if (epilogue.out_u8 != nullptr) {
    epilogue.out_u8[out] = quantize(y, epilogue.out);
  } else {
    epilogue.out_f32[out] = y;
  }
}

}  // namespace
}  // namespace qatx::kernels::reference
