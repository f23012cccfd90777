#include "qatx/kernels/observe.h"

#include "qatx/kernels/avx512/lanes.h"

namespace qatx::kernels {
namespace {

// NaN, infinities and zeros are squeezed out: half of what is behind a ReLU is 0, and counting it
// bin by bin would wait for one counter.
inline int64_t add_bins(__m512 x, __mmask16 there, __m512 inv_width, __m512i bins, uint16_t* out) {
  constexpr int others = 0x01 | 0x02 | 0x04 | 0x08 | 0x10 | 0x80;  // NaN, +-0, +-Inf
  const __mmask16 counted = _kandn_mask16(_mm512_fpclass_ps_mask(x, others), there);
  const __m512 scaled = _mm512_mul_ps(_mm512_andnot_ps(_mm512_set1_ps(-0.0f), x), inv_width);
  const __m512i sign = _mm512_srai_epi32(_mm512_castps_si512(x), 31);
  // ternary logic 0xf8: a | (b & c)
  const __m512i bin = _mm512_ternarylogic_epi32(_mm512_cvttps_epi32(scaled), sign, bins, 0xf8);
  const __m512i squeezed = _mm512_maskz_compress_epi32(counted, bin);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), _mm512_cvtepi32_epi16(squeezed));
  return __builtin_popcount(counted);
}

template <class T>
int64_t bins_of(const T* x, int64_t n, float inv_width, int32_t bins, uint16_t* out) {
  const __m512 factor = _mm512_set1_ps(inv_width);
  const __m512i negative = _mm512_set1_epi32(bins);
  int64_t used = 0;
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    used += add_bins(avx512::load_lanes(x + i).v, 0xffff, factor, negative, out + used);
  }
  if (i < n) {
    used += add_bins(avx512::load_first_lanes(x + i, n - i).v, avx512::first_16(n - i), factor,
                     negative, out + used);
  }
  return used;
}

}  // namespace
}  // namespace qatx::kernels

#define QATX_ISA avx512
#include "qatx/kernels/observe.inc"
