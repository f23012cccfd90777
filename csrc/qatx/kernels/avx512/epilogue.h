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
        bounds_(epilogue),
        least_(static_cast<int8_t>(static_cast<int32_t>(bounds_.low) + epilogue.out.zero_point)),
        most_(static_cast<int8_t>(static_cast<int32_t>(bounds_.high) + epilogue.out.zero_point)) {}

  // code - zero_point as int32; 0 for NaN
  __m512i operator()(__m512 y) const {
    const __m512 scaled = _mm512_mul_ps(y, _mm512_set1_ps(inv_scale_));
    const __m512 clamped = _mm512_min_ps(_mm512_max_ps(scaled, _mm512_set1_ps(bounds_.low)),
                                         _mm512_set1_ps(bounds_.high));
    return _mm512_maskz_cvt_roundps_epi32(_mm512_cmp_ps_mask(scaled, scaled, _CMP_ORD_Q), clamped,
                                          kNearest);
  }

  // Where y * inv_scale is known to lie within int32: the same before its clamp.
  __m512i without_clamp(__m512 y) const {
    return _mm512_cvt_roundps_epi32(_mm512_mul_ps(y, _mm512_set1_ps(inv_scale_)), kNearest);
  }

  // The 64 codes of four results. 128-bit lane L holds those of lane L of a, of b, of c and of d,
  // in this order.
  __m512i pack_lanes(__m512i a, __m512i b, __m512i c, __m512i d) const {
    // Sums that saturate are far outside of the codes.
    const __m512i zero_point = _mm512_set1_epi16(zero_point_);
    const __m512i ab = _mm512_adds_epi16(_mm512_packs_epi32(a, b), zero_point);
    const __m512i cd = _mm512_adds_epi16(_mm512_packs_epi32(c, d), zero_point);
    return _mm512_packus_epi16(ab, cd);
  }

  // The clamp of codes that come from without_clamp.
  __m512i clamp_codes(__m512i codes) const {
    return _mm512_min_epu8(_mm512_max_epu8(codes, _mm512_set1_epi8(least_)),
                           _mm512_set1_epi8(most_));
  }

  // Whether the clamp changes none.
  bool allows_all() const {
    return static_cast<uint8_t>(least_) == 0 && static_cast<uint8_t>(most_) == 255;
  }

 private:
  static constexpr int kNearest = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;

  float inv_scale_;
  int16_t zero_point_;
  CodeBounds bounds_;
  int8_t least_;  // the codes of the bounds
  int8_t most_;
};

// Whether all results, divided by the output's scale, lie far within int32 (so none is NaN).
// Accumulators add so many products to their start.
inline bool are_small(const Epilogue& epilogue, const int32_t* start, int64_t columns,
                      int64_t products) {
  const __m512 inv_scale = _mm512_set1_ps(epilogue.out.inv_scale);
  const float residual =
      epilogue.residual == nullptr ? 0.0f : 255.0f * __builtin_fabsf(epilogue.residual_scale);
  const __m512 most = _mm512_set1_ps(255.0f * 128.0f * static_cast<float>(products));
  __mmask16 small = 0xffff;
  for (int64_t c = 0; c < columns; c += 16) {
    const __mmask16 there = first_16(columns - c);
    const __m512 scale = _mm512_abs_ps(_mm512_maskz_loadu_ps(there, epilogue.scale + c));
    const __m512 bias = _mm512_abs_ps(_mm512_maskz_loadu_ps(there, epilogue.bias + c));
    const __m512 first =
        _mm512_abs_ps(_mm512_cvtepi32_ps(_mm512_maskz_loadu_epi32(there, start + c)));
    const __m512 sum = _mm512_mul_ps(_mm512_add_ps(first, most), scale);
    const __m512 y = _mm512_add_ps(_mm512_add_ps(sum, bias), _mm512_set1_ps(residual));
    small &= _mm512_cmp_ps_mask(_mm512_mul_ps(y, inv_scale), _mm512_set1_ps(0x1p30f), _CMP_LE_OQ);
  }
  return small == 0xffff;
}

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
