#pragma once

#include <cstdint>

namespace qatx::kernels {

// How an unsigned 8-bit code q stands for a float: (q - zero_point) * scale. Codes lie in
// [quant_min, quant_max], a part of 0..255 (fewer bits use fewer codes; signed ranges are shifted
// up).
struct QParams {
  float scale;
  float inv_scale;  // 1.0f / scale
  int32_t zero_point;
  int32_t quant_min;
  int32_t quant_max;

  bool operator==(const QParams&) const = default;
};

// What happens to an int32 accumulator of output row r, column c, in exactly this order of float
// operations:
//   y = float(acc) * scale[c] + bias[c]                                      (two roundings, no
//   FMA) if residual:  y = y + float(residual[r][c] - residual_zero_point) * residual_scale y =
//   min(max(y, clamp_min), clamp_max)                                    (ReLU: 0 and +inf)
//   out_f32[r][c] = y     or
//   out_u8[r][c]  = min(max(rint(y * out.inv_scale) + out.zero_point, out.quant_min),
//   out.quant_max)
// NaN stays NaN in out_f32 and becomes zero_point in out_u8. Rows are `*_stride` elements apart.
struct Epilogue {
  const float* scale;  // padded by the caller to whole blocks of columns, like bias and the
                       // accumulator's start
  const float* bias;
  const uint8_t* residual;  // nullptr: none
  int64_t residual_stride;
  float residual_scale;
  int32_t residual_zero_point;
  float clamp_min;
  float clamp_max;
  uint8_t* out_u8;  // exactly one of out_u8 and out_f32 is set
  float* out_f32;
  int64_t out_stride;
  int64_t out_gap;  // of a matrix product: elements that are left out behind each line of its grid
  QParams out;      // used with out_u8
};

}  // namespace qatx::kernels
