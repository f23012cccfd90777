#pragma once

#include <cstdint>

#include "qatx/kernels/avx512/intrinsics.h"

namespace qatx::kernels::avx512 {
namespace {

// The first `count` of 16 (64) elements; count may also be more or negative.
inline __mmask16 first_16(int64_t count) {
  return static_cast<__mmask16>(count >= 16 ? 0xffffu : count > 0 ? (1u << count) - 1 : 0u);
}

inline __mmask64 first_64(int64_t count) {
  return count >= 64 ? ~0ull : count > 0 ? (1ull << count) - 1 : 0;
}

}  // namespace
}  // namespace qatx::kernels::avx512
