#pragma once

#include <cstdint>

namespace qatx::kernels {

// The reductions run in this many float lanes on every instruction set (lane = index in the run
// modulo kLanes), so that their bits do not depend on the vector width.
inline constexpr int kLanes = 16;

// Quantization parameters of one channel. `zero_point` is an integer value in [quant_min,
// quant_max].
struct ChannelQParams {
  float scale;
  float inv_scale;  // 1.0f / scale
  float zero_point;
};

struct QuantRange {
  float quant_min;
  float quant_max;
};

// The numeric contract, element by element (no contraction, ties to even, NaN stays NaN):
//   v  = rint(x * inv_scale) + zero_point
//   q  = min(max(v, quant_min), quant_max)
//   y  = (q - zero_point) * scale
// Backward, with in = (quant_min <= v <= quant_max), false for NaN:
//   dx        = in ? g : 0
//   dscale   += g * (in ? (q - zero_point) - x * inv_scale : q - zero_point)
//   dzp      += in ? 0 : -(g * scale)
struct FakeQuantizeKernels {
  // A run of n elements that share one channel. y may be x.
  void (*forward_run)(const float* x, float* y, int64_t n, const ChannelQParams& qparams,
                      QuantRange range);
  // rows x channels elements, channel fastest; qparams as three arrays of `channels`.
  void (*forward_rows)(const float* x, float* y, int64_t rows, int64_t channels, const float* scale,
                       const float* inv_scale, const float* zero_point, QuantRange range);
  // Adds the terms of dscale and dzp to kLanes accumulators each: term i of the run to lane i %
  // kLanes.
  void (*backward_run)(const float* g, const float* x, float* dx, int64_t n,
                       const ChannelQParams& qparams, QuantRange range, float* dscale,
                       float* dzero_point);
  // Adds the terms to one accumulator per channel, rows in order.
  void (*backward_rows)(const float* g, const float* x, float* dx, int64_t rows, int64_t channels,
                        const float* scale, const float* inv_scale, const float* zero_point,
                        QuantRange range, float* dscale, float* dzero_point);
};

}  // namespace qatx::kernels
