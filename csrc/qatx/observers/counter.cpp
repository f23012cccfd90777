#include "qatx/observers/counter.h"

namespace qatx {

void Counter::widen(int64_t exponent) {
  if (exponent <= exponent_) return;
  if (counted_ > 0) {
    for (int64_t half = 0; half < 2 * kernels::kCountCopies; ++half) {
      merge_bins(counts_.data() + half * bins_, bins_, exponent - exponent_);
    }
  }
  exponent_ = exponent;
}

void Counter::flush(const State& state) {
  grow(state, exponent_);
  widen(state.words->exponent);
  state.words->count += finite_;
  state.words->zeros += zeros_;
  state.words->nan_count += nan_;
  state.words->inf_count += inf_;
  state.counts[0] += zeros_;
  state.widen(min_, max_);
  if (counted_ > 0) {
    const int64_t size = 2 * bins_;
    const uint32_t* counts = counts_.data();
    for (int64_t k = 0; k < size; ++k) {
      state.counts[k] +=
          int64_t{counts[k]} + counts[k + size] + counts[k + 2 * size] + counts[k + 3 * size];
    }
    std::fill(counts_.begin(), counts_.end(), 0);
  }
  counted_ = finite_ = zeros_ = nan_ = inf_ = 0;
  min_ = HUGE_VAL;
  max_ = -HUGE_VAL;
}

}  // namespace qatx
