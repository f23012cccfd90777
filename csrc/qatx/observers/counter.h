#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <type_traits>
#include <vector>

#include "qatx/kernels/registry.h"
#include "qatx/observers/state.h"

namespace qatx {

template <class T>
const kernels::ObserveKernels<T>& observe_kernels() {
  const kernels::Kernels& row = kernels::active();
  if constexpr (std::is_same_v<T, float>) {
    return row.observe.f32;
  } else if constexpr (std::is_same_v<T, kernels::BFloat16>) {
    return row.observe.bf16;
  } else if constexpr (std::is_same_v<T, kernels::Half>) {
    return row.observe.f16;
  } else {
    return row.observe_f64;
  }
}

// One thread's part in observing: narrow counters that stay in the cache, added to a state now and
// then. Works on a block of elements at a time, and twice on each, so that memory is read once:
// first for the extremes, which say how wide the bins must be, then for the bins.
class Counter {
 public:
  explicit Counter(int64_t bins)
      : bins_(bins), counts_(static_cast<size_t>(kernels::kCountCopies * 2 * bins), 0) {}

  // Before the first block: bins at least as wide as those of `state`.
  void begin(const State& state) { exponent_ = state.words->exponent; }

  // n <= kObservedBlock elements. Returns the sum of their magnitudes.
  template <class T>
  double add(const T* x, int64_t n) {
    const kernels::ObserveKernels<T>& kernels = observe_kernels<T>();
    const auto block = kernels.statistics(x, n);
    finite_ += block.finite;
    zeros_ += block.zeros;
    if (block.finite < n) count_others(x, n);
    if (block.finite == 0) return 0.0;
    min_ = std::min(min_, static_cast<double>(block.min));
    max_ = std::max(max_, static_cast<double>(block.max));
    widen(exponent_for(std::max(std::abs(static_cast<double>(block.min)),
                                std::abs(static_cast<double>(block.max))),
                       bins_));
    if (block.zeros < block.finite) {
      using Real = typename kernels::RealOf<T>::type;
      const auto inv_width = static_cast<Real>(std::ldexp(1.0, -static_cast<int>(exponent_)));
      kernels.count(x, n, inv_width, static_cast<int32_t>(bins_), counts_.data());
      counted_ += n;
    }
    return static_cast<double>(block.sum_magnitude);
  }

  // Whether the narrow counters might overflow with another block.
  bool is_full() const { return counted_ > (int64_t{1} << 31); }

  // Moves everything that was counted into `state`.
  void flush(const State& state);

  double min() const { return min_; }
  double max() const { return max_; }

 private:
  template <class T>
  void count_others(const T* x, int64_t n) {
    for (int64_t i = 0; i < n; ++i) {
      const auto value = kernels::to_real(x[i]);
      nan_ += std::isnan(value);
      inf_ += std::isinf(value);
    }
  }
  void widen(int64_t exponent);

  int64_t bins_;
  std::vector<uint32_t> counts_;
  int64_t exponent_ = kMinExponent;
  int64_t counted_ = 0;
  int64_t finite_ = 0;
  int64_t zeros_ = 0;
  int64_t nan_ = 0;
  int64_t inf_ = 0;
  double min_ = HUGE_VAL;
  double max_ = -HUGE_VAL;
};

}  // namespace qatx
