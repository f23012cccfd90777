#pragma once

#include "qatx/kernels/avx512/intrinsics.h"
#include "qatx/kernels/avx512/mask.h"
#include "qatx/kernels/code_bounds.h"
#include "qatx/kernels/epilogue.h"

// The steps of Epilogue for 16 columns at a time.

namespace qatx::kernels::avx512 {
namespace {

// From y before its clamp to codes.
class Requantize {
 public:
  explicit Requantize(const Epilogue& epilogue)
      : inv_scale_(epilogue.out.inv_scale),
        zero_point_(static_cast<int16_t>(epilogue.out.zero_point)),
        bounds_(epilogue) {}

  // code - zero_point as int32; 0 for NaN
  __m512i operator()(__m512 y) const { return steps<false>(y); }

  // The same, faster where the caller knows that y is not NaN.
  template <bool kNoNan>
  __m512i steps(__m512 y) const {
    constexpr int nearest = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
    const __m512 scaled = _mm512_mul_ps(y, _mm512_set1_ps(inv_scale_));
    const __m512 clamped = _mm512_min_ps(_mm512_max_ps(scaled, _mm512_set1_ps(bounds_.low)),
                                         _mm512_set1_ps(bounds_.high));
    if constexpr (kNoNan) return _mm512_cvt_roundps_epi32(clamped, nearest);
    const __mmask16 no_nan = _mm512_cmp_ps_mask(scaled, scaled, _CMP_ORD_Q);
    return _mm512_maskz_cvt_roundps_epi32(no_nan, clamped, nearest);
  }

  // The 64 codes of four results. 128-bit lane L holds those of lane L of a, of b, of c and of d,
  // in this order.
  __m512i pack_lanes(__m512i a, __m512i b, __m512i c, __m512i d) const {
    const __m512i zero_point = _mm512_set1_epi16(zero_point_);
    const __m512i ab = _mm512_add_epi16(_mm512_packs_epi32(a, b), zero_point);
    const __m512i cd = _mm512_add_epi16(_mm512_packs_epi32(c, d), zero_point);
    return _mm512_packus_epi16(ab, cd);
  }

 private:
  float inv_scale_;
  int16_t zero_point_;
  CodeBounds bounds_;
};

inline __m512 scale_and_bias(__m512i acc, __m512 scale, __m512 bias) {
  return _mm512_add_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(acc), scale), bias);
}

// codes: 16 of the residual, as int32
inline __m512 add_residual(__m512 y, __m512i codes, const Epilogue& epilogue) {
  const __m512i shifted = _mm512_sub_epi32(codes, _mm512_set1_epi32(epilogue.residual_zero_point));
  return _mm512_add_ps(
      y, _mm512_mul_ps(_mm512_cvtepi32_ps(shifted), _mm512_set1_ps(epilogue.residual_scale)));
}

// Where one of two operands is NaN, max and min return the second: NaN stays.
inline __m512 clamp(__m512 y, const Epilogue& epilogue) {
  return _mm512_min_ps(_mm512_set1_ps(epilogue.clamp_max),
                       _mm512_max_ps(_mm512_set1_ps(epilogue.clamp_min), y));
}

}  // namespace
}  // namespace qatx::kernels::avx512
