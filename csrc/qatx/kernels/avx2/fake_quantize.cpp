#include "qatx/kernels/fake_quantize.h"

#include <immintrin.h>

#include "qatx/kernels/avx2/mask.h"
#include "qatx/kernels/implementations.h"

namespace qatx::kernels {
namespace {

constexpr int64_t kWidth = 8;
static_assert(2 * kWidth == kLanes);

struct Range {
  explicit Range(QuantRange range)
      : low(_mm256_set1_ps(range.quant_min)), high(_mm256_set1_ps(range.quant_max)) {}
  __m256 low;
  __m256 high;
};

struct VectorQParams {
  explicit VectorQParams(const ChannelQParams& qparams)
      : scale(_mm256_set1_ps(qparams.scale)),
        inv_scale(_mm256_set1_ps(qparams.inv_scale)),
        zero_point(_mm256_set1_ps(qparams.zero_point)) {}
  // Of the first `count` of 8 channels.
  VectorQParams(int64_t count, const float* scales, const float* inv_scales,
                const float* zero_points)
      : scale(avx2::load_first(scales, count)),
        inv_scale(avx2::load_first(inv_scales, count)),
        zero_point(avx2::load_first(zero_points, count)) {}
  __m256 scale;
  __m256 inv_scale;
  __m256 zero_point;
};

__m256 unclamped(__m256 scaled, const VectorQParams& qparams) {
  return _mm256_add_ps(_mm256_round_ps(scaled, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC),
                       qparams.zero_point);
}

// q - zero_point. Where one of two operands is NaN, max and min return the second: NaN stays.
__m256 difference(__m256 v, const VectorQParams& qparams, const Range& range) {
  const __m256 q = _mm256_min_ps(range.high, _mm256_max_ps(range.low, v));
  return _mm256_sub_ps(q, qparams.zero_point);
}

__m256 forward(__m256 x, const VectorQParams& qparams, const Range& range) {
  const __m256 v = unclamped(_mm256_mul_ps(x, qparams.inv_scale), qparams);
  return _mm256_mul_ps(difference(v, qparams, range), qparams.scale);
}

struct Gradients {
  __m256 dx;
  __m256 dscale;
  __m256 dzero_point;
};

Gradients backward(__m256 g, __m256 x, const VectorQParams& qparams, const Range& range) {
  const __m256 scaled = _mm256_mul_ps(x, qparams.inv_scale);
  const __m256 v = unclamped(scaled, qparams);
  const __m256 in = _mm256_and_ps(_mm256_cmp_ps(v, range.low, _CMP_GE_OQ),
                                  _mm256_cmp_ps(v, range.high, _CMP_LE_OQ));
  // Subtracting +0 changes no bit.
  const __m256 term = _mm256_sub_ps(difference(v, qparams, range), _mm256_and_ps(in, scaled));
  // -(g * scale) by flipping the sign of one factor, which changes no other bit.
  const __m256 minus_scale = _mm256_xor_ps(qparams.scale, _mm256_set1_ps(-0.0f));
  return {_mm256_and_ps(in, g), _mm256_mul_ps(g, term),
          _mm256_andnot_ps(in, _mm256_mul_ps(g, minus_scale))};
}

// The first `count` of 8 elements, all from 8 on.
void forward_first(int64_t count, const float* x, float* y, const VectorQParams& qparams,
                   const Range& range) {
  avx2::store_first(y, count, forward(avx2::load_first(x, count), qparams, range));
}

// The same, adding to the lanes of these elements only.
void backward_first(int64_t count, const float* g, const float* x, float* dx,
                    const VectorQParams& qparams, const Range& range, __m256& dscale,
                    __m256& dzero_point) {
  const Gradients gradients =
      backward(avx2::load_first(g, count), avx2::load_first(x, count), qparams, range);
  const __m256 lanes = _mm256_castsi256_ps(avx2::first_8(count));
  dscale = _mm256_blendv_ps(dscale, _mm256_add_ps(dscale, gradients.dscale), lanes);
  dzero_point =
      _mm256_blendv_ps(dzero_point, _mm256_add_ps(dzero_point, gradients.dzero_point), lanes);
  avx2::store_first(dx, count, gradients.dx);
}

void forward_run(const float* x, float* y, int64_t n, const ChannelQParams& qparams,
                 QuantRange range) {
  const VectorQParams vector_qparams(qparams);
  const Range vector_range(range);
  int64_t i = 0;
  for (; i + kWidth <= n; i += kWidth) {
    _mm256_storeu_ps(y + i, forward(_mm256_loadu_ps(x + i), vector_qparams, vector_range));
  }
  if (i < n) forward_first(n - i, x + i, y + i, vector_qparams, vector_range);
}

void forward_rows(const float* x, float* y, int64_t rows, int64_t channels, const float* scale,
                  const float* inv_scale, const float* zero_point, QuantRange range) {
  const Range vector_range(range);
  for (int64_t r = 0; r < rows; ++r, x += channels, y += channels) {
    for (int64_t c = 0; c < channels; c += kWidth) {
      const VectorQParams qparams(channels - c, scale + c, inv_scale + c, zero_point + c);
      forward_first(channels - c, x + c, y + c, qparams, vector_range);
    }
  }
}

void backward_run(const float* g, const float* x, float* dx, int64_t n,
                  const ChannelQParams& qparams, QuantRange range, float* dscale,
                  float* dzero_point) {
  const VectorQParams vector_qparams(qparams);
  const Range vector_range(range);
  __m256 scale_sum[2] = {_mm256_loadu_ps(dscale), _mm256_loadu_ps(dscale + kWidth)};
  __m256 zero_point_sum[2] = {_mm256_loadu_ps(dzero_point), _mm256_loadu_ps(dzero_point + kWidth)};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (int v = 0; v < 2; ++v) {
      const int64_t at = i + v * kWidth;
      const Gradients gradients =
          backward(_mm256_loadu_ps(g + at), _mm256_loadu_ps(x + at), vector_qparams, vector_range);
      scale_sum[v] = _mm256_add_ps(scale_sum[v], gradients.dscale);
      zero_point_sum[v] = _mm256_add_ps(zero_point_sum[v], gradients.dzero_point);
      _mm256_storeu_ps(dx + at, gradients.dx);
    }
  }
  for (int v = 0; v < 2 && i < n; ++v, i += kWidth) {
    backward_first(n - i, g + i, x + i, dx + i, vector_qparams, vector_range, scale_sum[v],
                   zero_point_sum[v]);
  }
  for (int v = 0; v < 2; ++v) {
    _mm256_storeu_ps(dscale + v * kWidth, scale_sum[v]);
    _mm256_storeu_ps(dzero_point + v * kWidth, zero_point_sum[v]);
  }
}

void backward_rows(const float* g, const float* x, float* dx, int64_t rows, int64_t channels,
                   const float* scale, const float* inv_scale, const float* zero_point,
                   QuantRange range, float* dscale, float* dzero_point) {
  const Range vector_range(range);
  for (int64_t c = 0; c < channels; c += kWidth) {
    // One vector of channels, all rows, with its sums in registers.
    const int64_t count = channels - c;
    const VectorQParams qparams(count, scale + c, inv_scale + c, zero_point + c);
    __m256 scale_sum = avx2::load_first(dscale + c, count);
    __m256 zero_point_sum = avx2::load_first(dzero_point + c, count);
    for (int64_t i = c; i < rows * channels; i += channels) {
      backward_first(count, g + i, x + i, dx + i, qparams, vector_range, scale_sum, zero_point_sum);
    }
    avx2::store_first(dscale + c, count, scale_sum);
    avx2::store_first(dzero_point + c, count, zero_point_sum);
  }
}

}  // namespace

const FakeQuantizeKernels avx2::fake_quantize = {forward_run, forward_rows, backward_run,
                                                 backward_rows};

}  // namespace qatx::kernels
