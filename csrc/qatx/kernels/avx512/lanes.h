#pragma once

#include <cstdint>

#include "qatx/kernels/avx512/intrinsics.h"
#include "qatx/kernels/avx512/mask.h"
#include "qatx/kernels/float16.h"

// A vector of 16 floats for the .inc files that are written once for several instruction sets.
// `count` is the number of elements that are there, at least 1; the others are loaded as 0 and not
// stored.

namespace qatx::kernels::avx512 {
namespace {

struct Lanes {
  __m512 v;
};
struct Mask {
  __mmask16 m;
};

inline Lanes all(float value) { return {_mm512_set1_ps(value)}; }

inline Lanes operator+(Lanes a, Lanes b) { return {_mm512_add_ps(a.v, b.v)}; }
inline Lanes operator-(Lanes a, Lanes b) { return {_mm512_sub_ps(a.v, b.v)}; }
inline Lanes operator*(Lanes a, Lanes b) { return {_mm512_mul_ps(a.v, b.v)}; }
inline Lanes operator/(Lanes a, Lanes b) { return {_mm512_div_ps(a.v, b.v)}; }
// The second operand where one of both is NaN.
inline Lanes min(Lanes a, Lanes b) { return {_mm512_min_ps(a.v, b.v)}; }
inline Lanes max(Lanes a, Lanes b) { return {_mm512_max_ps(a.v, b.v)}; }
inline Lanes rint(Lanes a) {
  return {_mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
}
inline Lanes floor(Lanes a) {
  return {_mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC)};
}
// 2^k of whole numbers k in [-126, 127].
inline Lanes power_of_two(Lanes k) {
  const __m512i exponent = _mm512_add_epi32(_mm512_cvtps_epi32(k.v), _mm512_set1_epi32(127));
  return {_mm512_castsi512_ps(_mm512_slli_epi32(exponent, 23))};
}
inline Lanes negative(Lanes a) { return {_mm512_xor_ps(a.v, _mm512_set1_ps(-0.0f))}; }
inline Lanes magnitude(Lanes a) { return {_mm512_andnot_ps(_mm512_set1_ps(-0.0f), a.v)}; }

// False where an operand is NaN.
inline Mask less(Lanes a, Lanes b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ)}; }
inline Mask less_equal(Lanes a, Lanes b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_LE_OQ)}; }
inline Mask equal(Lanes a, Lanes b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_EQ_OQ)}; }
inline Mask operator&(Mask a, Mask b) { return {_kand_mask16(a.m, b.m)}; }
inline Mask operator|(Mask a, Mask b) { return {_kor_mask16(a.m, b.m)}; }
inline Mask mask_of(bool value) { return {static_cast<__mmask16>(value ? 0xffff : 0)}; }
inline Mask mask_of_first(int64_t count) { return {first_16(count)}; }
inline Mask not_first(int64_t count) { return {_knot_mask16(first_16(count))}; }
inline bool is_full(Mask mask) { return mask.m == 0xffff; }
// a where the mask is set, b elsewhere.
inline Lanes select(Mask mask, Lanes a, Lanes b) { return {_mm512_mask_mov_ps(b.v, mask.m, a.v)}; }

// a where the mask is set, 0 elsewhere.
inline Lanes where(Mask mask, Lanes a) { return {_mm512_maskz_mov_ps(mask.m, a.v)}; }
// a - b where the mask is set, a elsewhere; a + b where it is not set, a elsewhere.
inline Lanes minus_where(Lanes a, Mask mask, Lanes b) {
  return {_mm512_mask_sub_ps(a.v, mask.m, a.v, b.v)};
}
inline Lanes plus_where_not(Lanes a, Mask mask, Lanes b) {
  return {_mm512_mask_add_ps(a.v, _knot_mask16(mask.m), a.v, b.v)};
}

// Lane i takes lane i + 8, then i + 4, i + 2, i + 1.
inline float sum(Lanes a) {
  const __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(a.v), _mm512_extractf32x8_ps(a.v, 1));
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}
// The same for two vectors at once.
inline void sum_two(Lanes a, Lanes b, float* sum_a, float* sum_b) {
  const __m256 eight_a = _mm256_add_ps(_mm512_castps512_ps256(a.v), _mm512_extractf32x8_ps(a.v, 1));
  const __m256 eight_b = _mm256_add_ps(_mm512_castps512_ps256(b.v), _mm512_extractf32x8_ps(b.v, 1));
  const __m256 four = _mm256_add_ps(_mm256_permute2f128_ps(eight_a, eight_b, 0x20),
                                    _mm256_permute2f128_ps(eight_a, eight_b, 0x31));
  const __m256 two = _mm256_add_ps(four, _mm256_permute_ps(four, 0x4e));
  const __m256 one = _mm256_add_ps(two, _mm256_movehdup_ps(two));
  *sum_a = _mm_cvtss_f32(_mm256_castps256_ps128(one));
  *sum_b = _mm_cvtss_f32(_mm256_extractf128_ps(one, 1));
}
inline float smallest_of(Lanes a) { return _mm512_reduce_min_ps(a.v); }

// ---- memory -------------------------------------------------------------------------------------

inline __m512 widen_bfloat16(__m256i bits) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
}

// What is NaN came from a NaN of 16 bits, whose lower half is 0: rounding leaves it NaN.
inline __m256i narrow_bfloat16(__m512 value) {
  const __m512i bits = _mm512_castps_si512(value);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i rounded = _mm512_srli_epi32(
      _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff))), 16);
  return _mm512_cvtepi32_epi16(rounded);
}

inline __m256i narrow_half(__m512 value) {
  return _mm512_cvtps_ph(value, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

inline __m256i load_bits(const void* from) {
  return _mm256_loadu_si256(static_cast<const __m256i*>(from));
}
inline __m256i load_first_bits(const void* from, int64_t count) {
  return _mm256_maskz_loadu_epi16(first_16(count), from);
}

inline Lanes load_lanes(const float* from) { return {_mm512_loadu_ps(from)}; }
inline Lanes load_lanes(const BFloat16* from) { return {widen_bfloat16(load_bits(from))}; }
inline Lanes load_lanes(const Half* from) { return {_mm512_cvtph_ps(load_bits(from))}; }

inline Lanes load_first_lanes(const float* from, int64_t count) {
  return {_mm512_maskz_loadu_ps(first_16(count), from)};
}
inline Lanes load_first_lanes(const BFloat16* from, int64_t count) {
  return {widen_bfloat16(load_first_bits(from, count))};
}
inline Lanes load_first_lanes(const Half* from, int64_t count) {
  return {_mm512_cvtph_ps(load_first_bits(from, count))};
}

inline void store_lanes(float* to, Lanes value) { _mm512_storeu_ps(to, value.v); }
inline void store_lanes(BFloat16* to, Lanes value) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), narrow_bfloat16(value.v));
}
inline void store_lanes(Half* to, Lanes value) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), narrow_half(value.v));
}

inline void store_first_lanes(float* to, Lanes value, int64_t count) {
  _mm512_mask_storeu_ps(to, first_16(count), value.v);
}
inline void store_first_lanes(BFloat16* to, Lanes value, int64_t count) {
  _mm256_mask_storeu_epi16(to, first_16(count), narrow_bfloat16(value.v));
}
inline void store_first_lanes(Half* to, Lanes value, int64_t count) {
  _mm256_mask_storeu_epi16(to, first_16(count), narrow_half(value.v));
}

// to[i] = mask[i] ? from[i] : 0, bit for bit; `value` is what was loaded from there.
inline void keep(Mask mask, Lanes value, const float*, float* to, int64_t count) {
  const Lanes kept = where(mask, value);
  if (count >= 16) {
    store_lanes(to, kept);
  } else {
    store_first_lanes(to, kept, count);
  }
}
inline void keep_bits(Mask mask, const void* from, void* to, int64_t count) {
  if (count >= 16) {
    _mm256_storeu_si256(static_cast<__m256i*>(to), _mm256_maskz_loadu_epi16(mask.m, from));
    return;
  }
  const __mmask16 there = first_16(count);
  _mm256_mask_storeu_epi16(to, there, _mm256_maskz_loadu_epi16(_kand_mask16(mask.m, there), from));
}
inline void keep(Mask mask, Lanes, const BFloat16* from, BFloat16* to, int64_t count) {
  keep_bits(mask, from, to, count);
}
inline void keep(Mask mask, Lanes, const Half* from, Half* to, int64_t count) {
  keep_bits(mask, from, to, count);
}

// Integers in lanes, to and from their low 8 bits.
inline void store_codes(uint8_t* to, Lanes value, int64_t count) {
  _mm512_mask_cvtepi32_storeu_epi8(to, first_16(count), _mm512_cvtps_epi32(value.v));
}
inline Lanes load_codes(const uint8_t* from, bool is_signed, int64_t count) {
  const __m128i codes = _mm_maskz_loadu_epi8(first_16(count), from);
  return {
      _mm512_cvtepi32_ps(is_signed ? _mm512_cvtepi8_epi32(codes) : _mm512_cvtepu8_epi32(codes))};
}

}  // namespace
}  // namespace qatx::kernels::avx512
