#pragma once

#include <cstdint>

#include "qatx/kernels/epilogue.h"
#include "qatx/kernels/window.h"

namespace qatx::kernels {

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
};

}  // namespace qatx::kernels
