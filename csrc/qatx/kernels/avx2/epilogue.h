#pragma once

#include <immintrin.h>

#include "qatx/kernels/avx2/mask.h"
#include "qatx/kernels/code_bounds.h"
#include "qatx/kernels/epilogue.h"

// The steps of Epilogue for 16 columns at a time.

namespace qatx::kernels::avx2 {
namespace {

constexpr int64_t kColumns = 16;

// Copies 1 to 16 bytes.
inline void copy_bytes(uint8_t* to, const uint8_t* from, int64_t count) {
  if (count >= kColumns) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to),
                     _mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
  } else {
    for (int64_t i = 0; i < count; ++i) to[i] = from[i];
  }
}

// 16 accumulators of one row, which begins at element `out` of the output: columns column ..
// column + 15, of which `columns` are there.
class Finish {
 public:
  explicit Finish(const Epilogue& epilogue)
      : epilogue_(epilogue),
        zero_point_(static_cast<int16_t>(epilogue.out.zero_point)),
        bounds_(epilogue) {}

  void operator()(const __m256i (&acc)[2], int64_t row, int64_t out, int64_t column,
                  int64_t columns) const {
    __m256 y[2];
    for (int v = 0; v < 2; ++v) {
      const __m256 scale = _mm256_loadu_ps(epilogue_.scale + column + 8 * v);
      const __m256 bias = _mm256_loadu_ps(epilogue_.bias + column + 8 * v);
      y[v] = _mm256_add_ps(_mm256_mul_ps(_mm256_cvtepi32_ps(acc[v]), scale), bias);
    }
    if (epilogue_.residual != nullptr) {
      add_residual(y, epilogue_.residual + row * epilogue_.residual_stride + column, columns);
    }
    if (epilogue_.out_u8 != nullptr) {
      store_codes(y, epilogue_.out_u8 + out + column, columns);
    } else {
      store_floats(y, epilogue_.out_f32 + out + column, columns);
    }
  }

 private:
  void add_residual(__m256 (&y)[2], const uint8_t* residual, int64_t columns) const {
    alignas(16) uint8_t codes[kColumns] = {};
    copy_bytes(codes, residual, columns);
    for (int v = 0; v < 2; ++v) {
      const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(codes + 8 * v));
      const __m256i shifted = _mm256_sub_epi32(_mm256_cvtepu8_epi32(bytes),
                                               _mm256_set1_epi32(epilogue_.residual_zero_point));
      y[v] = _mm256_add_ps(y[v], _mm256_mul_ps(_mm256_cvtepi32_ps(shifted),
                                               _mm256_set1_ps(epilogue_.residual_scale)));
    }
  }

  void store_codes(const __m256 (&y)[2], uint8_t* out, int64_t columns) const {
    __m256i codes[2];  // less the zero point; 0 for NaN
    for (int v = 0; v < 2; ++v) {
      const __m256 scaled = _mm256_mul_ps(y[v], _mm256_set1_ps(epilogue_.out.inv_scale));
      const __m256 no_nan = _mm256_cmp_ps(scaled, scaled, _CMP_ORD_Q);
      const __m256 clamped = _mm256_min_ps(_mm256_max_ps(scaled, _mm256_set1_ps(bounds_.low)),
                                           _mm256_set1_ps(bounds_.high));
      codes[v] = _mm256_cvtps_epi32(_mm256_and_ps(
          no_nan, _mm256_round_ps(clamped, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)));
    }
    const __m256i shifted =
        _mm256_add_epi16(_mm256_packs_epi32(codes[0], codes[1]), _mm256_set1_epi16(zero_point_));
    const __m256i packed = _mm256_packus_epi16(shifted, shifted);
    // Each 128-bit lane holds 4 columns of codes[0], then 4 of codes[1].
    const __m256i in_order =
        _mm256_permutevar8x32_epi32(packed, _mm256_setr_epi32(0, 4, 1, 5, 0, 4, 1, 5));
    alignas(16) uint8_t bytes[kColumns];
    _mm_store_si128(reinterpret_cast<__m128i*>(bytes), _mm256_castsi256_si128(in_order));
    copy_bytes(out, bytes, columns);
  }

  // Where one of two operands is NaN, max and min return the second: NaN stays.
  void store_floats(const __m256 (&y)[2], float* out, int64_t columns) const {
    for (int v = 0; v < 2; ++v) {
      const __m256 clamped =
          _mm256_min_ps(_mm256_set1_ps(epilogue_.clamp_max),
                        _mm256_max_ps(_mm256_set1_ps(epilogue_.clamp_min), y[v]));
      store_first(out + 8 * v, columns - 8 * v, clamped);
    }
  }

  const Epilogue& epilogue_;
  int16_t zero_point_;
  CodeBounds bounds_;
};

}  // namespace
}  // namespace qatx::kernels::avx2
