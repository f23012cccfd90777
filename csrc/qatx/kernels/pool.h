#pragma once

#include <cstdint>

#include "qatx/kernels/epilogue.h"
#include "qatx/kernels/window.h"

namespace qatx::kernels {

// The places of an image between which a value is interpolated, as offsets, and their weights.
struct Interpolation {
  int64_t first;
  int64_t second;
  float first_weight;
  float second_weight;
};

struct PoolKernels {
  // out[r][c] = max over the taps that are no padding; at least one tap of each row is none. out
  // rows are `channels` apart.
  void (*max)(const Window& window, int64_t channels, uint8_t* out, int64_t row_begin,
              int64_t row_end);
  // acc = sum over the taps that are no padding of (input[c] - zero_point);
  // y = float(acc) * multiplier[pixel], then clamp and output as in Epilogue (its scale, bias,
  // residual are not used). multiplier[p] is scale / float(divisor of pixel p). Taps * 255 fits
  // int32.
  void (*average)(const Window& window, int64_t channels, int32_t zero_point,
                  const float* multiplier, const Epilogue& epilogue, int64_t row_begin,
                  int64_t row_end);
  // A row of `pixels` output pixels, each between four of the image's. With a, b the first row's
  // and c, d the second row's float(q - zero_point), v the vertical and h the pixel's weights: y =
  // ((a * h1 + b * h2) * v1 + (c * h1 + d * h2) * v2) * scale, then clamp and output as in Epilogue
  // (its scale, bias, residual are not used).
  void (*interpolate)(const uint8_t* image, const QParams& qparams, const Interpolation& vertical,
                      const Interpolation* horizontal, int64_t pixels, int64_t channels,
                      const Epilogue& epilogue);
};

}  // namespace qatx::kernels
