#pragma once

#include <cstdint>

#include "qatx/kernels/epilogue.h"

namespace qatx::kernels {

struct ElementwiseKernels {
  // q = min(max(rint(x * inv_scale) + zero_point, quant_min), quant_max); NaN becomes zero_point.
  void (*quantize)(const float* x, uint8_t* q, int64_t n, const QParams& qparams);
  // x = float(q - zero_point) * scale
  void (*dequantize)(const uint8_t* q, float* x, int64_t n, const QParams& qparams);
  // The same with a transposition: x is [channels][pixels] (NCHW), q is [pixels][channels] (NHWC).
  void (*quantize_to_nhwc)(const float* x, uint8_t* q, int64_t channels, int64_t pixels,
                           const QParams& qparams);
  void (*dequantize_to_nchw)(const uint8_t* q, float* x, int64_t channels, int64_t pixels,
                             const QParams& qparams);
  // y = float(a - za) * sa + float(b - zb) * sb, then clamp and output as in Epilogue (its scale,
  // bias, residual and strides are not used); n elements.
  void (*add)(const uint8_t* a, const QParams& qa, const uint8_t* b, const QParams& qb, int64_t n,
              const Epilogue& epilogue);
};

}  // namespace qatx::kernels
