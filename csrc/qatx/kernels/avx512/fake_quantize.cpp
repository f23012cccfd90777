#include "qatx/kernels/fake_quantize.h"

#include "qatx/kernels/avx512/intrinsics.h"
#include "qatx/kernels/avx512/mask.h"
#include "qatx/kernels/implementations.h"

namespace qatx::kernels {
namespace {

constexpr int64_t kWidth = 16;
static_assert(kWidth == kLanes);

struct Range {
  explicit Range(QuantRange range)
      : low(_mm512_set1_ps(range.quant_min)), high(_mm512_set1_ps(range.quant_max)) {}
  __m512 low;
  __m512 high;
};

struct VectorQParams {
  explicit VectorQParams(const ChannelQParams& qparams)
      : scale(_mm512_set1_ps(qparams.scale)),
        inv_scale(_mm512_set1_ps(qparams.inv_scale)),
        zero_point(_mm512_set1_ps(qparams.zero_point)) {}
  VectorQParams(__mmask16 mask, const float* scales, const float* inv_scales,
                const float* zero_points)
      : scale(_mm512_maskz_loadu_ps(mask, scales)),
        inv_scale(_mm512_maskz_loadu_ps(mask, inv_scales)),
        zero_point(_mm512_maskz_loadu_ps(mask, zero_points)) {}
  __m512 scale;
  __m512 inv_scale;
  __m512 zero_point;
};

__m512 unclamped(__m512 scaled, const VectorQParams& qparams) {
  return _mm512_add_ps(_mm512_roundscale_ps(scaled, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC),
                       qparams.zero_point);
}

// q - zero_point. Where one of two operands is NaN, max and min return the second: NaN stays.
__m512 difference(__m512 v, const VectorQParams& qparams, const Range& range) {
  const __m512 q = _mm512_min_ps(range.high, _mm512_max_ps(range.low, v));
  return _mm512_sub_ps(q, qparams.zero_point);
}

__m512 forward(__m512 x, const VectorQParams& qparams, const Range& range) {
  const __m512 v = unclamped(_mm512_mul_ps(x, qparams.inv_scale), qparams);
  return _mm512_mul_ps(difference(v, qparams, range), qparams.scale);
}

// Adds to the lanes of `mask` only, and returns dx.
__m512 backward(__mmask16 mask, __m512 g, __m512 x, const VectorQParams& qparams,
                const Range& range, __m512& dscale, __m512& dzero_point) {
  const __m512 scaled = _mm512_mul_ps(x, qparams.inv_scale);
  const __m512 v = unclamped(scaled, qparams);
  const __mmask16 in = _mm512_mask_cmp_ps_mask(_mm512_cmp_ps_mask(v, range.low, _CMP_GE_OQ), v,
                                               range.high, _CMP_LE_OQ);
  const __m512 clamped = difference(v, qparams, range);
  const __m512 term = _mm512_mask_sub_ps(clamped, in, clamped, scaled);
  dscale = _mm512_mask_add_ps(dscale, mask, dscale, _mm512_mul_ps(g, term));
  // -(g * scale) by flipping the sign of one factor, which changes no other bit.
  const __m512 minus_scale = _mm512_xor_ps(qparams.scale, _mm512_set1_ps(-0.0f));
  const __m512 outside = _mm512_maskz_mul_ps(_knot_mask16(in), g, minus_scale);
  dzero_point = _mm512_mask_add_ps(dzero_point, mask, dzero_point, outside);
  return _mm512_maskz_mov_ps(in, g);
}

void forward_run(const float* x, float* y, int64_t n, const ChannelQParams& qparams,
                 QuantRange range) {
  const VectorQParams vector_qparams(qparams);
  const Range vector_range(range);
  int64_t i = 0;
  for (; i + kWidth <= n; i += kWidth) {
    _mm512_storeu_ps(y + i, forward(_mm512_loadu_ps(x + i), vector_qparams, vector_range));
  }
  if (i < n) {
    const __mmask16 mask = avx512::first_16(n - i);
    _mm512_mask_storeu_ps(
        y + i, mask, forward(_mm512_maskz_loadu_ps(mask, x + i), vector_qparams, vector_range));
  }
}

void forward_rows(const float* x, float* y, int64_t rows, int64_t channels, const float* scale,
                  const float* inv_scale, const float* zero_point, QuantRange range) {
  const Range vector_range(range);
  for (int64_t r = 0; r < rows; ++r, x += channels, y += channels) {
    for (int64_t c = 0; c < channels; c += kWidth) {
      const __mmask16 mask = avx512::first_16(channels - c);
      const VectorQParams qparams(mask, scale + c, inv_scale + c, zero_point + c);
      _mm512_mask_storeu_ps(y + c, mask,
                            forward(_mm512_maskz_loadu_ps(mask, x + c), qparams, vector_range));
    }
  }
}

void backward_run(const float* g, const float* x, float* dx, int64_t n,
                  const ChannelQParams& qparams, QuantRange range, float* dscale,
                  float* dzero_point) {
  const VectorQParams vector_qparams(qparams);
  const Range vector_range(range);
  __m512 scale_sum = _mm512_loadu_ps(dscale);
  __m512 zero_point_sum = _mm512_loadu_ps(dzero_point);
  int64_t i = 0;
  for (; i + kWidth <= n; i += kWidth) {
    _mm512_storeu_ps(dx + i, backward(0xffff, _mm512_loadu_ps(g + i), _mm512_loadu_ps(x + i),
                                      vector_qparams, vector_range, scale_sum, zero_point_sum));
  }
  if (i < n) {
    const __mmask16 mask = avx512::first_16(n - i);
    _mm512_mask_storeu_ps(
        dx + i, mask,
        backward(mask, _mm512_maskz_loadu_ps(mask, g + i), _mm512_maskz_loadu_ps(mask, x + i),
                 vector_qparams, vector_range, scale_sum, zero_point_sum));
  }
  _mm512_storeu_ps(dscale, scale_sum);
  _mm512_storeu_ps(dzero_point, zero_point_sum);
}

// A strip of kVectors vectors of channels, all rows, with its sums in registers; the last of
// `channels` may be less than whole vectors. Rows are `stride` elements apart.
template <int kVectors>
void backward_strip(const float* g, const float* x, float* dx, int64_t rows, int64_t stride,
                    int64_t channels, const float* scale, const float* inv_scale,
                    const float* zero_point, const Range& range, float* dscale,
                    float* dzero_point) {
  const __mmask16 mask = avx512::first_16(channels - (kVectors - 1) * kWidth);
  __m512 scale_sum[kVectors];
  __m512 zero_point_sum[kVectors];
#pragma GCC unroll 4
  for (int v = 0; v < kVectors; ++v) {
    const __mmask16 valid = v + 1 < kVectors ? static_cast<__mmask16>(0xffff) : mask;
    scale_sum[v] = _mm512_maskz_loadu_ps(valid, dscale + v * kWidth);
    zero_point_sum[v] = _mm512_maskz_loadu_ps(valid, dzero_point + v * kWidth);
  }
  for (int64_t r = 0; r < rows; ++r, g += stride, x += stride, dx += stride) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      const int64_t c = v * kWidth;
      const __mmask16 valid = v + 1 < kVectors ? static_cast<__mmask16>(0xffff) : mask;
      const VectorQParams qparams(valid, scale + c, inv_scale + c, zero_point + c);
      const __m512 gradient = _mm512_maskz_loadu_ps(valid, g + c);
      const __m512 input = _mm512_maskz_loadu_ps(valid, x + c);
      _mm512_mask_storeu_ps(
          dx + c, valid,
          backward(valid, gradient, input, qparams, range, scale_sum[v], zero_point_sum[v]));
    }
  }
#pragma GCC unroll 4
  for (int v = 0; v < kVectors; ++v) {
    const __mmask16 valid = v + 1 < kVectors ? static_cast<__mmask16>(0xffff) : mask;
    _mm512_mask_storeu_ps(dscale + v * kWidth, valid, scale_sum[v]);
    _mm512_mask_storeu_ps(dzero_point + v * kWidth, valid, zero_point_sum[v]);
  }
}

void backward_rows(const float* g, const float* x, float* dx, int64_t rows, int64_t channels,
                   const float* scale, const float* inv_scale, const float* zero_point,
                   QuantRange range, float* dscale, float* dzero_point) {
  const Range vector_range(range);
  for (int64_t c = 0; c < channels;) {
    // Wide strips, because the processor fetches neighbouring cache lines together.
    const bool wide = channels - c >= 4 * kWidth;
    const auto strip = wide ? backward_strip<4> : backward_strip<1>;
    strip(g + c, x + c, dx + c, rows, channels, channels - c, scale + c, inv_scale + c,
          zero_point + c, vector_range, dscale + c, dzero_point + c);
    c += wide ? 4 * kWidth : kWidth;
  }
}

}  // namespace

const FakeQuantizeKernels avx512::fake_quantize = {forward_run, forward_rows, backward_run,
                                                   backward_rows};

}  // namespace qatx::kernels
