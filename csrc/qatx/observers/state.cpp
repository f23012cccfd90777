#include "qatx/observers/state.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

namespace qatx {

double State::min() const { return std::bit_cast<double>(words->min_bits); }
double State::max() const { return std::bit_cast<double>(words->max_bits); }

void State::widen(double low, double high) const {
  words->min_bits = std::bit_cast<int64_t>(std::min(min(), low));
  words->max_bits = std::bit_cast<int64_t>(std::max(max(), high));
}

int64_t exponent_for(double magnitude, int64_t bins) {
  if (magnitude == 0.0) return kMinExponent;
  const int needed = std::ilogb(magnitude) + 1 - std::countr_zero(static_cast<uint64_t>(bins));
  return std::max<int64_t>(needed, kMinExponent);
}

void clear(const State& state) {
  std::memset(static_cast<void*>(state.words), 0, sizeof(StateWords));
  std::fill_n(state.counts, 2 * state.bins, 0);
  state.words->exponent = kMinExponent;
  state.words->min_bits = std::bit_cast<int64_t>(std::numeric_limits<double>::infinity());
  state.words->max_bits = std::bit_cast<int64_t>(-std::numeric_limits<double>::infinity());
}

void grow(const State& state, int64_t exponent) {
  const int64_t shift = exponent - state.words->exponent;
  if (shift <= 0) return;
  merge_bins(state.counts, state.bins, shift);
  merge_bins(state.counts + state.bins, state.bins, shift);
  state.words->exponent = exponent;
}

void merge(const State& state, const State& other) {
  grow(state, other.words->exponent);
  grow(other, state.words->exponent);
  state.words->count += other.words->count;
  state.words->zeros += other.words->zeros;
  state.words->nan_count += other.words->nan_count;
  state.words->inf_count += other.words->inf_count;
  state.words->batch_count += other.words->batch_count;
  state.widen(other.min(), other.max());
  merge_exact_sums(state.words->sum_magnitude, other.words->sum_magnitude);
  merge_exact_sums(state.words->sum_batch_min, other.words->sum_batch_min);
  merge_exact_sums(state.words->sum_batch_max, other.words->sum_batch_max);
  for (int64_t k = 0; k < 2 * state.bins; ++k) state.counts[k] += other.counts[k];
}

}  // namespace qatx
