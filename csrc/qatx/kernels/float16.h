#pragma once

#include <cstdint>

namespace qatx::kernels {

// The 16-bit floating-point formats, as their bits: kernels see no Torch header.
struct BFloat16 {
  uint16_t bits;
};
struct Half {
  uint16_t bits;
};

namespace {

inline uint32_t bits_of(float value) {
  uint32_t bits = 0;
  __builtin_memcpy(&bits, &value, sizeof(bits));
  return bits;
}

inline float float_of(uint32_t bits) {
  float value = 0;
  __builtin_memcpy(&value, &bits, sizeof(value));
  return value;
}

inline float to_real(float value) { return value; }
inline double to_real(double value) { return value; }
inline float to_real(BFloat16 value) { return float_of(static_cast<uint32_t>(value.bits) << 16); }
inline float to_real(Half value) {
  const uint32_t sign = static_cast<uint32_t>(value.bits & 0x8000u) << 16;
  const uint32_t magnitude = value.bits & 0x7fffu;
  // Denormals: a multiple of 2^-24, exactly.
  if (magnitude < 0x400u) {
    return float_of(bits_of(static_cast<float>(magnitude) * 0x1p-24f) | sign);
  }
  // Infinity and NaN have all exponent bits set in both formats.
  const uint32_t bias = magnitude >= 0x7c00u ? (255u - 31u) << 23 : (127u - 15u) << 23;
  return float_of(((magnitude << 13) + bias) | sign);
}

// Rounds to nearest, ties to even. Conversions never raise; NaN stays NaN.
template <class T>
T from_real(float value);
template <class T>
T from_real(double value);

template <>
inline float from_real<float>(float value) {
  return value;
}
template <>
inline double from_real<double>(double value) {
  return value;
}
template <>
inline BFloat16 from_real<BFloat16>(float value) {
  const uint32_t bits = bits_of(value);
  if (value != value) return {0x7fc0};
  return {static_cast<uint16_t>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16)};
}
template <>
inline Half from_real<Half>(float value) {
  const uint32_t bits = bits_of(value);
  const auto sign = static_cast<uint16_t>(bits >> 16 & 0x8000u);
  const uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return {static_cast<uint16_t>(sign | 0x7e00u)};
  // From here on (65520) everything rounds to infinity.
  if (magnitude >= 0x477ff000u) return {static_cast<uint16_t>(sign | 0x7c00u)};
  if (magnitude < 0x38800000u) {
    // Denormal in the result: adding 0.5 leaves multiples of 2^-24 in the last places.
    const uint32_t shifted = bits_of(float_of(magnitude) + 0.5f) - bits_of(0.5f);
    return {static_cast<uint16_t>(sign | shifted)};
  }
  const uint32_t rebiased = magnitude - ((127u - 15u) << 23);
  const uint32_t rounded = rebiased + 0xfffu + (rebiased >> 13 & 1u);
  return {static_cast<uint16_t>(sign | rounded >> 13)};
}

}  // namespace
}  // namespace qatx::kernels
