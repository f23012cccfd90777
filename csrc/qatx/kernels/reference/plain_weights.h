#pragma once

#include <cstddef>
#include <cstdint>

namespace qatx::kernels::reference {
namespace {

// The reference kernels' packed form: the weights as they are, filled up with zeros to a multiple
// of 64 bytes.
inline size_t plain_bytes(int64_t weights) { return static_cast<size_t>((weights + 63) / 64 * 64); }

inline void pack_plain(const int8_t* weight, int64_t weights, void* packed) {
  auto* out = static_cast<int8_t*>(packed);
  for (size_t i = 0; i < plain_bytes(weights); ++i) {
    out[i] = i < static_cast<size_t>(weights) ? weight[i] : int8_t{0};
  }
}

}  // namespace
}  // namespace qatx::kernels::reference
