#pragma once

#include <cstdint>

#include "qatx/kernels/epilogue.h"

namespace qatx::kernels {

// One of two tensors that are combined element by element.
struct Operand {
  const uint8_t* codes;
  QParams qparams;
  int64_t row_stride;  // 0: every row meets the same codes
  bool constant;       // one code for all elements of a row; at most one operand is
};

struct ElementwiseKernels {
  // q = min(max(rint(x * inv_scale) + zero_point, quant_min), quant_max); NaN becomes zero_point.
  void (*quantize)(const float* x, uint8_t* q, int64_t n, const QParams& qparams);
  // x = float(q - zero_point) * scale
  void (*dequantize)(const uint8_t* q, float* x, int64_t n, const QParams& qparams);
  // steps = q - zero_point, which has to fit 8 signed bits. Returns their sum.
  int32_t (*center)(const uint8_t* q, int8_t* steps, int64_t n, uint8_t zero_point);
  // As quantize and dequantize, with a transposition: x is [channels][pixels] (NCHW), q is
  // [pixels][channels] (NHWC).
  void (*quantize_to_nhwc)(const float* x, uint8_t* q, int64_t channels, int64_t pixels,
                           const QParams& qparams);
  void (*dequantize_to_nchw)(const uint8_t* q, float* x, int64_t channels, int64_t pixels,
                             const QParams& qparams);
  // y = float(a - za) * sa + float(b - zb) * sb (add), or the product of the two (mul), or the
  // first divided by the second (div), then clamp and output as in Epilogue (its scale, bias,
  // residual are not used): `rows` rows of n elements.
  void (*add)(const Operand& a, const Operand& b, int64_t rows, int64_t n,
              const Epilogue& epilogue);
  void (*mul)(const Operand& a, const Operand& b, int64_t rows, int64_t n,
              const Epilogue& epilogue);
  void (*div)(const Operand& a, const Operand& b, int64_t rows, int64_t n,
              const Epilogue& epilogue);
  // out = table[q], of 256 entries
  void (*lookup)(const uint8_t* q, uint8_t* out, int64_t n, const uint8_t* table);
  void (*lookup_f32)(const uint8_t* q, float* out, int64_t n, const float* table);
  // The same for n indices of 4 or 2 bits, the first in the lowest bits, and 16 or 4 entries.
  void (*lookup_4)(const uint8_t* q, uint8_t* out, int64_t n, const uint8_t* table);
  void (*lookup_2)(const uint8_t* q, uint8_t* out, int64_t n, const uint8_t* table);
  // out[r][i] = in[r * in_row + i * in_step]; rows of the output are `out_row` apart.
  void (*copy)(const uint8_t* in, int64_t in_row, int64_t in_step, uint8_t* out, int64_t out_row,
               int64_t rows, int64_t n);
};

}  // namespace qatx::kernels
