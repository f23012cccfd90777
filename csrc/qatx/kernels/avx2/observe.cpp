#include "qatx/kernels/observe.h"

#include "qatx/kernels/avx2/lanes.h"

namespace qatx::kernels {
namespace {

inline __m256i bins_of_8(__m256 x, __m256 inv_width, __m256i bins) {
  const __m256 scaled = _mm256_mul_ps(_mm256_andnot_ps(_mm256_set1_ps(-0.0f), x), inv_width);
  const __m256i sign = _mm256_srai_epi32(_mm256_castps_si256(x), 31);
  return _mm256_or_si256(_mm256_cvttps_epi32(scaled), _mm256_and_si256(sign, bins));
}

inline int counted_of_8(__m256 x) {
  const __m256 size = _mm256_andnot_ps(_mm256_set1_ps(-0.0f), x);
  return _mm256_movemask_ps(
      _mm256_and_ps(_mm256_cmp_ps(size, _mm256_setzero_ps(), _CMP_GT_OQ),
                    _mm256_cmp_ps(size, _mm256_set1_ps(__FLT_MAX__), _CMP_LE_OQ)));
}

// The bins that are not counted are overwritten by the next one: no branch has to be guessed.
inline int64_t add_bins(avx2::Lanes x, int there, __m256 inv_width, __m256i bins, uint16_t* out) {
  const int counted = (counted_of_8(x.a) | counted_of_8(x.b) << 8) & there;
  const __m256i words = avx2::in_order(
      _mm256_packus_epi32(bins_of_8(x.a, inv_width, bins), bins_of_8(x.b, inv_width, bins)));
  if (counted == 0xffff) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), words);
    return kLanes;
  }
  alignas(32) uint16_t all[kLanes];
  _mm256_store_si256(reinterpret_cast<__m256i*>(all), words);
  int64_t used = 0;
  for (int i = 0; i < kLanes; ++i) {
    out[used] = all[i];
    used += counted >> i & 1;
  }
  return used;
}

template <class T>
int64_t bins_of(const T* x, int64_t n, float inv_width, int32_t bins, uint16_t* out) {
  const __m256 factor = _mm256_set1_ps(inv_width);
  const __m256i negative = _mm256_set1_epi32(bins);
  int64_t used = 0;
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    used += add_bins(avx2::load_lanes(x + i), 0xffff, factor, negative, out + used);
  }
  if (i < n) {
    used += add_bins(avx2::load_first_lanes(x + i, n - i), (1 << (n - i)) - 1, factor, negative,
                     out + used);
  }
  return used;
}

}  // namespace
}  // namespace qatx::kernels

#define QATX_ISA avx2
#include "qatx/kernels/observe.inc"
