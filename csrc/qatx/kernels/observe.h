#pragma once

#include <cstdint>

#include "qatx/kernels/fake_quantize.h"

namespace qatx::kernels {

// The most elements that one call of a kernel takes: they are read from memory once and then stay
// in the first-level cache, and the sum of their magnitudes stays accurate in float32.
inline constexpr int64_t kObservedBlock = 4096;

// Bins are counted in this many copies, in turn: adding to one counter twice in a row has to wait.
inline constexpr int64_t kCountCopies = 4;

// Of the finite elements of a block. -0 counts as 0.
template <class Real>
struct BlockStatistics {
  Real min;            // +Inf where there is none
  Real max;            // -Inf where there is none
  Real sum_magnitude;  // in kLanes lanes, as in fake_quantize.h
  int64_t finite;
  int64_t zeros;
};

// n <= kObservedBlock elements of type T.
template <class T>
struct ObserveKernels {
  using Real = typename RealOf<T>::type;

  BlockStatistics<Real> (*statistics)(const T* x, int64_t n);

  // Adds 1 to the bin of each element that is finite and not 0, in one of the kCountCopies arrays
  // that lie in `counts` one behind the other. An array has 2 * bins elements, with `bins` a power
  // of two up to 2^15: first those for positive x, then those for negative x; within each half,
  // bin k = trunc(|x| * inv_width) < bins.
  void (*count)(const T* x, int64_t n, Real inv_width, int32_t bins, uint32_t* counts);
};

// An instruction set's kernels for the element types that arithmetic in float serves.
struct ObserveTable {
  ObserveKernels<float> f32;
  ObserveKernels<BFloat16> bf16;
  ObserveKernels<Half> f16;
};

}  // namespace qatx::kernels
