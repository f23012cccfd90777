#pragma once

#include <cstdint>

#include "qatx/kernels/float16.h"

namespace qatx::kernels {

// The reductions run in this many lanes on every instruction set (lane = index in the run modulo
// kLanes; then lane i takes lane i + 8, i + 4, i + 2, i + 1), so that their bits do not depend on
// the vector width.
inline constexpr int kLanes = 16;

struct QuantRange {
  float quant_min;
  float quant_max;
};

// What arithmetic on elements of type T is done in.
template <class T>
struct RealOf {
  using type = float;
};
template <>
struct RealOf<double> {
  using type = double;
};

// Quantization parameters: arrays with one element for each run, or for each channel of a row, as
// prepare() makes them from scale and zero_point. low and high are integers: the distance of
// quant_min and quant_max from the zero point in use.
template <class Real>
struct QParamsView {
  const Real* scale;
  const Real* inv_scale;  // 1 / scale
  const Real* low;
  const Real* high;
};

// How the backward differs from the default.
struct GradientOptions {
  bool pass_through;   // dx = g everywhere
  const float* noise;  // that of the forward, or null
};

// Elements of type T; arithmetic in Real = float (double where T is double), every result rounded
// to T once. The numeric contract (docs/numerics.md), element by element, in terms of the distance
// from the zero point, which gives the same bits with less work (no contraction, ties to even, NaN
// stays NaN):
//   scaled = x * inv_scale
//   r = rint(scaled)
//     = floor(scaled) + (noise < scaled - floor(scaled) ? 1 : 0)   where noise is given: stochastic
//       rounding with one number in [0, 1) for each element
//   d = min(max(r, low), high)
//   y = d * scale, and 0 instead of -0
// Backward, with in = (d == r), false for NaN:
//   dx      = in ? g : 0                          (g everywhere where pass_through)
//   dscale  = sum of g * (in ? d - scaled : d)
//   outside = sum of in ? 0 : g                   (the gradient of zero_point is -scale times that)
//
// Data lie in one of two ways. "runs": `runs` runs of n elements side by side, each with parameters
// of its own; a run's sum is taken in kLanes lanes. "rows": rows x channels elements, channel
// fastest, parameters by channel; a channel's sum takes the rows in order.
template <class T>
struct FakeQuantizeKernels {
  using Real = typename RealOf<T>::type;

  // y may be x.
  void (*forward_runs)(const T* x, T* y, int64_t runs, int64_t n, QParamsView<Real> qparams,
                       const float* noise);
  void (*forward_rows)(const T* x, T* y, int64_t rows, int64_t channels, QParamsView<Real> qparams,
                       const float* noise);
  void (*backward_runs)(const T* g, const T* x, T* dx, int64_t runs, int64_t n,
                        QParamsView<Real> qparams, GradientOptions options, Real* dscale,
                        Real* outside);
  void (*backward_rows)(const T* g, const T* x, T* dx, int64_t rows, int64_t channels,
                        QParamsView<Real> qparams, GradientOptions options, Real* dscale,
                        Real* outside);

  // d + zero_point as an 8-bit integer (its low 8 bits: int8 or uint8); NaN becomes zero_point.
  void (*quantize_runs)(const T* x, uint8_t* codes, int64_t runs, int64_t n,
                        QParamsView<Real> qparams, QuantRange range);
  void (*quantize_rows)(const T* x, uint8_t* codes, int64_t rows, int64_t channels,
                        QParamsView<Real> qparams, QuantRange range);
  // y = (code - zero_point) * scale. inv_scale is not used.
  void (*dequantize_runs)(const uint8_t* codes, bool is_signed, T* y, int64_t runs, int64_t n,
                          QParamsView<Real> qparams, QuantRange range);
  void (*dequantize_rows)(const uint8_t* codes, bool is_signed, T* y, int64_t rows,
                          int64_t channels, QParamsView<Real> qparams, QuantRange range);

  // A learned clipping point (PACT), one for each run or channel:
  //   dx = 0 <= x < alpha ? g : 0,   dalpha = sum of x >= alpha ? g : 0
  void (*clip_backward_runs)(const T* g, const T* x, T* dx, int64_t runs, int64_t n,
                             const Real* alpha, Real* dalpha);
  void (*clip_backward_rows)(const T* g, const T* x, T* dx, int64_t rows, int64_t channels,
                             const Real* alpha, Real* dalpha);

  // The smallest and the largest finite element; +Inf and -Inf where there is none. -0 counts as 0.
  void (*range_runs)(const T* x, int64_t runs, int64_t n, Real* min, Real* max);
  void (*range_rows)(const T* x, int64_t rows, int64_t channels, Real* min, Real* max);

  // The zero point in use is zero_point, rounded and clamped to the range. False where a scale is
  // not in [2^-126, 2^126] or a zero point is NaN. Only checks where inv_scale is null.
  bool (*prepare)(const Real* scale, const Real* zero_point, int64_t n, QuantRange range,
                  Real* inv_scale, Real* low, Real* high);

  // sums[i] *= factor * factors[i] in double (* factor alone where factors is null).
  void (*scale_sums)(Real* sums, int64_t n, double factor, const Real* factors);
};

// out[i] = number first + i of the stream of `seed`: the upper 24 bits of word i % 4 of Philox
// 4x32-10 (Salmon et al., SC 2011) at counter i / 4, times 2^-24.
using NoiseKernel = void (*)(uint64_t seed, int64_t first, int64_t n, float* out);

// An instruction set's kernels for the element types that arithmetic in float serves.
struct FakeQuantizeTable {
  FakeQuantizeKernels<float> f32;
  FakeQuantizeKernels<BFloat16> bf16;
  FakeQuantizeKernels<Half> f16;
  NoiseKernel noise;
};

}  // namespace qatx::kernels
