#pragma once

#include <cstdint>

#include "qatx/kernels/epilogue.h"

namespace qatx::kernels {

// Rows of float32 elements that lie behind each other, and what is done to them first:
//   t = x * factor (or x / factor, where `divide` is set), then t + mask, where there is a mask;
//   or, where `replace` is set, the mask's element in the place of t, unless that is NaN
struct Rows {
  const float* x;  // [rows][n]
  int64_t rows;
  int64_t n;
  float factor;  // 1: none
  bool divide;
  const float* mask;    // nullptr: none
  int64_t mask_stride;  // 0: every row meets the same n numbers
  bool replace = false;
};

// Operators that see whole rows and compute in float32. Their sums are taken in kLanes lanes,
// element i in lane i % kLanes, one after the other; then lane i takes lane i + 8, i + 4, i + 2, i
// + 1. Results are clamped and written as in Epilogue (its scale, bias and residual are not used).
struct RowKernels {
  // y = t
  void (*affine)(const Rows& rows, const Epilogue& epilogue);

  // y = e(t - max(t)) * (1 / sum of all e), with e(u) = 0 for u < -87 and otherwise, in this order
  // of float operations (Cephes' expf, relative error below 2^-22):
  //   k = rint(u * 1.44269504),  r = (u - k * 0.693359375) - k * -2.12194440e-4
  //   p = ((((a r + b) r + c) r + d) r + e) r + f,  e(u) = ((p * (r * r) + r) + 1) * 2^k
  // A row that holds NaN or +Inf, or nothing but -Inf, gives NaN. `scratch` holds n floats.
  void (*softmax)(const Rows& rows, float* scratch, const Epilogue& epilogue);

  // d = x - sum(x) / n,  y = (d * (1 / sqrt(sum(d * d) / n + eps))) * weight[i] + bias[i]
  void (*layer_norm)(const float* x, int64_t rows, int64_t n, const float* weight,
                     const float* bias, float eps, const Epilogue& epilogue);

  // Codes of each row by its own range, which lie behind each other; m is the row's largest finite
  // magnitude:
  //   scale = m == 0 ? 1 : min(max(m / quant_max, kRowScaleLeast), kRowScaleMost)
  //   code = min(max(rint(x * (1 / scale)), -quant_max), quant_max) + kRowZeroPoint
  // NaN gets the code kRowZeroPoint, and its row the scale NaN, which makes all that comes of it
  // NaN.
  void (*quantize)(const float* x, int64_t rows, int64_t n, int32_t quant_max, uint8_t* codes,
                   float* scales);
};

inline constexpr int32_t kRowZeroPoint = 128;
inline constexpr float kRowScaleLeast = 0x1p-126f;
inline constexpr float kRowScaleMost = 0x1p126f;

// The scale of a row with this largest magnitude.
constexpr float row_scale(float largest, int32_t quant_max) {
  if (largest == 0.0f) return 1.0f;
  const float scale = largest / static_cast<float>(quant_max);
  if (scale < kRowScaleLeast) return kRowScaleLeast;
  return scale > kRowScaleMost ? kRowScaleMost : scale;
}

// a to f of the polynomial above, and the other constants.
inline constexpr float kExpLeast = -87.0f;
inline constexpr float kExpLog2E = 1.44269504088896341f;
inline constexpr float kExpLn2High = 0.693359375f;
inline constexpr float kExpLn2Low = -2.12194440e-4f;
inline constexpr float kExpPolynomial[6] = {1.9875691500e-4f, 1.3981999507e-3f, 8.3334519073e-3f,
                                            4.1665795894e-2f, 1.6666665459e-1f, 5.0000001201e-1f};

}  // namespace qatx::kernels
