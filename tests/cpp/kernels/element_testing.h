#pragma once

#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>

#include <type_traits>

#include "qatx/kernels/float16.h"

// The element types that kernels take, with c10's conversions as the oracle of ours.

namespace qatx::kernels {

template <class T>
struct Element {
  static_assert(std::is_floating_point_v<T>);
  static T make(T value) { return value; }
  static T real(T element) { return element; }
};
template <>
struct Element<BFloat16> {
  static BFloat16 make(float value) { return {c10::BFloat16(value).x}; }
  static float real(BFloat16 e) { return c10::BFloat16(e.bits, c10::BFloat16::from_bits()); }
};
template <>
struct Element<Half> {
  static Half make(float value) { return {c10::Half(value).x}; }
  static float real(Half e) { return c10::Half(e.bits, c10::Half::from_bits()); }
};

// The member of a table of kernels, one for each element type, that is for T; `f64` stands alone.
template <class T, class Table, class Kernels64>
const auto& kernels_for(const Table& table, const Kernels64& f64) {
  if constexpr (std::is_same_v<T, float>) {
    return table.f32;
  } else if constexpr (std::is_same_v<T, BFloat16>) {
    return table.bf16;
  } else if constexpr (std::is_same_v<T, Half>) {
    return table.f16;
  } else {
    return f64;
  }
}

}  // namespace qatx::kernels
