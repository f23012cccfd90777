#pragma once

#include <immintrin.h>

#include <cstdint>

namespace qatx::kernels::avx2 {
namespace {

// The first `count` of 8 32-bit elements; count may also be more or negative.
inline __m256i first_8(int64_t count) {
  const int32_t clamped = count < 0 ? 0 : count > 8 ? 8 : static_cast<int32_t>(count);
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(clamped), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

// The others are 0.
inline __m256 load_first(const float* from, int64_t count) {
  return count >= 8 ? _mm256_loadu_ps(from) : _mm256_maskload_ps(from, first_8(count));
}

// Whole vectors without a mask: masked stores are slow on some processors.
inline void store_first(float* to, int64_t count, __m256 values) {
  if (count >= 8) {
    _mm256_storeu_ps(to, values);
  } else {
    _mm256_maskstore_ps(to, first_8(count), values);
  }
}

}  // namespace
}  // namespace qatx::kernels::avx2
