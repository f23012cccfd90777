#pragma once

#include <immintrin.h>

#include <cstdint>

#include "qatx/kernels/avx2/mask.h"
#include "qatx/kernels/float16.h"

// A vector of 16 floats for the .inc files that are written once for several instruction sets.
// `count` is the number of elements that are there, at least 1; the others are loaded as 0 and not
// stored.

namespace qatx::kernels::avx2 {
namespace {

struct Lanes {
  __m256 a;  // lanes 0 to 7
  __m256 b;
};
// All bits of a lane set, or none.
struct Mask {
  __m256 a;
  __m256 b;
};

inline Lanes all(float value) { return {_mm256_set1_ps(value), _mm256_set1_ps(value)}; }

inline Lanes operator+(Lanes x, Lanes y) {
  return {_mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b)};
}
inline Lanes operator-(Lanes x, Lanes y) {
  return {_mm256_sub_ps(x.a, y.a), _mm256_sub_ps(x.b, y.b)};
}
inline Lanes operator*(Lanes x, Lanes y) {
  return {_mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b)};
}
inline Lanes operator/(Lanes x, Lanes y) {
  return {_mm256_div_ps(x.a, y.a), _mm256_div_ps(x.b, y.b)};
}
// The second operand where one of both is NaN.
inline Lanes min(Lanes x, Lanes y) { return {_mm256_min_ps(x.a, y.a), _mm256_min_ps(x.b, y.b)}; }
inline Lanes max(Lanes x, Lanes y) { return {_mm256_max_ps(x.a, y.a), _mm256_max_ps(x.b, y.b)}; }
inline Lanes rint(Lanes x) {
  constexpr int nearest = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
  return {_mm256_round_ps(x.a, nearest), _mm256_round_ps(x.b, nearest)};
}
inline Lanes floor(Lanes x) {
  constexpr int down = _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC;
  return {_mm256_round_ps(x.a, down), _mm256_round_ps(x.b, down)};
}
// 2^k of whole numbers k in [-126, 127].
inline __m256 power_of_two(__m256 k) {
  const __m256i exponent = _mm256_add_epi32(_mm256_cvtps_epi32(k), _mm256_set1_epi32(127));
  return _mm256_castsi256_ps(_mm256_slli_epi32(exponent, 23));
}
inline Lanes power_of_two(Lanes k) { return {power_of_two(k.a), power_of_two(k.b)}; }
inline Lanes negative(Lanes x) {
  const __m256 sign = _mm256_set1_ps(-0.0f);
  return {_mm256_xor_ps(x.a, sign), _mm256_xor_ps(x.b, sign)};
}
inline Lanes magnitude(Lanes x) {
  const __m256 sign = _mm256_set1_ps(-0.0f);
  return {_mm256_andnot_ps(sign, x.a), _mm256_andnot_ps(sign, x.b)};
}

// False where an operand is NaN.
inline Mask less(Lanes x, Lanes y) {
  return {_mm256_cmp_ps(x.a, y.a, _CMP_LT_OQ), _mm256_cmp_ps(x.b, y.b, _CMP_LT_OQ)};
}
inline Mask less_equal(Lanes x, Lanes y) {
  return {_mm256_cmp_ps(x.a, y.a, _CMP_LE_OQ), _mm256_cmp_ps(x.b, y.b, _CMP_LE_OQ)};
}
inline Mask equal(Lanes x, Lanes y) {
  return {_mm256_cmp_ps(x.a, y.a, _CMP_EQ_OQ), _mm256_cmp_ps(x.b, y.b, _CMP_EQ_OQ)};
}
inline Mask operator&(Mask x, Mask y) { return {_mm256_and_ps(x.a, y.a), _mm256_and_ps(x.b, y.b)}; }
inline Mask operator|(Mask x, Mask y) { return {_mm256_or_ps(x.a, y.a), _mm256_or_ps(x.b, y.b)}; }
inline Mask mask_of_first(int64_t count) {
  return {_mm256_castsi256_ps(first_8(count)), _mm256_castsi256_ps(first_8(count - 8))};
}
inline Mask mask_of(bool value) { return mask_of_first(value ? 16 : 0); }
inline Mask not_first(int64_t count) {
  const Mask there = mask_of_first(count);
  const __m256 ones = _mm256_castsi256_ps(_mm256_set1_epi32(-1));
  return {_mm256_xor_ps(there.a, ones), _mm256_xor_ps(there.b, ones)};
}
inline bool is_full(Mask mask) {
  return (_mm256_movemask_ps(mask.a) & _mm256_movemask_ps(mask.b)) == 0xff;
}
// x where the mask is set, y elsewhere.
inline Lanes select(Mask mask, Lanes x, Lanes y) {
  return {_mm256_blendv_ps(y.a, x.a, mask.a), _mm256_blendv_ps(y.b, x.b, mask.b)};
}

// x where the mask is set, 0 elsewhere.
inline Lanes where(Mask mask, Lanes x) {
  return {_mm256_and_ps(mask.a, x.a), _mm256_and_ps(mask.b, x.b)};
}
// x - y where the mask is set, x elsewhere; x + y where it is not set, x elsewhere (0 instead of
// -0).
inline Lanes minus_where(Lanes x, Mask mask, Lanes y) { return x - where(mask, y); }
inline Lanes plus_where_not(Lanes x, Mask mask, Lanes y) {
  return x + Lanes{_mm256_andnot_ps(mask.a, y.a), _mm256_andnot_ps(mask.b, y.b)};
}

// Lane i takes lane i + 8, then i + 4, i + 2, i + 1.
inline float sum(Lanes x) {
  const __m256 eight = _mm256_add_ps(x.a, x.b);
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}
// The same for two vectors at once.
inline void sum_two(Lanes x, Lanes y, float* sum_x, float* sum_y) {
  const __m256 eight_x = _mm256_add_ps(x.a, x.b);
  const __m256 eight_y = _mm256_add_ps(y.a, y.b);
  const __m256 four = _mm256_add_ps(_mm256_permute2f128_ps(eight_x, eight_y, 0x20),
                                    _mm256_permute2f128_ps(eight_x, eight_y, 0x31));
  const __m256 two = _mm256_add_ps(four, _mm256_permute_ps(four, 0x4e));
  const __m256 one = _mm256_add_ps(two, _mm256_movehdup_ps(two));
  *sum_x = _mm_cvtss_f32(_mm256_castps256_ps128(one));
  *sum_y = _mm_cvtss_f32(_mm256_extractf128_ps(one, 1));
}
inline float smallest_of(Lanes x) {
  const __m256 eight = _mm256_min_ps(x.a, x.b);
  const __m128 four = _mm_min_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_min_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_min_ss(two, _mm_movehdup_ps(two)));
}

// ---- memory -------------------------------------------------------------------------------------

// 16 elements of 16 bits, or the first `count` of them.
inline __m256i load_bits(const void* from) {
  return _mm256_loadu_si256(static_cast<const __m256i*>(from));
}
inline void store_bits(void* to, __m256i bits) {
  _mm256_storeu_si256(static_cast<__m256i*>(to), bits);
}
inline __m256i load_first_bits(const void* from, int64_t count) {
  alignas(32) uint16_t elements[16] = {};
  __builtin_memcpy(elements, from, static_cast<size_t>(2 * count));
  return load_bits(elements);
}
inline void store_first_bits(void* to, __m256i bits, int64_t count) {
  alignas(32) uint16_t elements[16];
  store_bits(elements, bits);
  __builtin_memcpy(to, elements, static_cast<size_t>(2 * count));
}

// What packing two vectors leaves: each 128-bit half holds 4 lanes of the first, then 4 of the
// second.
inline __m256i in_order(__m256i packed) { return _mm256_permute4x64_epi64(packed, 0xd8); }

inline __m256 widen_bfloat16(__m128i bits) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
}
// What is NaN came from a NaN of 16 bits, whose lower half is 0: rounding leaves it NaN.
inline __m256i round_to_bfloat16(__m256 value) {
  const __m256i bits = _mm256_castps_si256(value);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  return _mm256_srli_epi32(_mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff))),
                           16);
}
inline __m128i narrow_half(__m256 value) {
  return _mm256_cvtps_ph(value, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

inline Lanes widen(const BFloat16*, __m256i bits) {
  return {widen_bfloat16(_mm256_castsi256_si128(bits)),
          widen_bfloat16(_mm256_extracti128_si256(bits, 1))};
}
inline Lanes widen(const Half*, __m256i bits) {
  return {_mm256_cvtph_ps(_mm256_castsi256_si128(bits)),
          _mm256_cvtph_ps(_mm256_extracti128_si256(bits, 1))};
}
inline __m256i narrow(const BFloat16*, Lanes value) {
  return in_order(_mm256_packus_epi32(round_to_bfloat16(value.a), round_to_bfloat16(value.b)));
}
inline __m256i narrow(const Half*, Lanes value) {
  return _mm256_inserti128_si256(_mm256_castsi128_si256(narrow_half(value.a)), narrow_half(value.b),
                                 1);
}

inline Lanes load_lanes(const float* from) {
  return {_mm256_loadu_ps(from), _mm256_loadu_ps(from + 8)};
}
inline Lanes load_first_lanes(const float* from, int64_t count) {
  return {load_first(from, count),
          count > 8 ? load_first(from + 8, count - 8) : _mm256_setzero_ps()};
}
inline void store_lanes(float* to, Lanes value) {
  _mm256_storeu_ps(to, value.a);
  _mm256_storeu_ps(to + 8, value.b);
}
inline void store_first_lanes(float* to, Lanes value, int64_t count) {
  store_first(to, count, value.a);
  if (count > 8) store_first(to + 8, count - 8, value.b);
}

template <class T>
Lanes load_lanes(const T* from) {
  return widen(from, load_bits(from));
}
template <class T>
Lanes load_first_lanes(const T* from, int64_t count) {
  return widen(from, load_first_bits(from, count));
}
template <class T>
void store_lanes(T* to, Lanes value) {
  store_bits(to, narrow(to, value));
}
template <class T>
void store_first_lanes(T* to, Lanes value, int64_t count) {
  store_first_bits(to, narrow(to, value), count);
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
template <class T>
void keep(Mask mask, Lanes, const T* from, T* to, int64_t count) {
  const __m256i bits =
      in_order(_mm256_packs_epi32(_mm256_castps_si256(mask.a), _mm256_castps_si256(mask.b)));
  if (count >= 16) {
    store_bits(to, _mm256_and_si256(bits, load_bits(from)));
  } else {
    store_first_bits(to, _mm256_and_si256(bits, load_first_bits(from, count)), count);
  }
}

// Integers in lanes, to and from their low 8 bits.
inline void store_codes(uint8_t* to, Lanes value, int64_t count) {
  const __m256i words =
      _mm256_packs_epi32(_mm256_cvtps_epi32(value.a), _mm256_cvtps_epi32(value.b));
  const __m256i low = _mm256_and_si256(in_order(words), _mm256_set1_epi16(0xff));
  const __m128i bytes =
      _mm_packus_epi16(_mm256_castsi256_si128(low), _mm256_extracti128_si256(low, 1));
  if (count >= 16) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to), bytes);
  } else {
    alignas(16) uint8_t codes[16];
    _mm_store_si128(reinterpret_cast<__m128i*>(codes), bytes);
    __builtin_memcpy(to, codes, static_cast<size_t>(count));
  }
}
inline Lanes load_codes(const uint8_t* from, bool is_signed, int64_t count) {
  alignas(16) uint8_t first[16] = {};
  if (count < 16) {
    __builtin_memcpy(first, from, static_cast<size_t>(count));
    from = first;
  }
  const __m128i low = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
  const __m128i high = _mm_unpackhi_epi64(low, low);
  if (is_signed) {
    return {_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(low)),
            _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(high))};
  }
  return {_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(low)),
          _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(high))};
}

}  // namespace
}  // namespace qatx::kernels::avx2
