#pragma once

#include <cstdint>

#include "qatx/observers/exact_sum.h"

namespace qatx {

// What an observer knows about the values that share one scale: integers in a row of memory, so
// that states are saved, sent and added up as integer tensors.
//
// The histogram has 2 * bins counts: those of positive values, then those of negative ones, both
// counted from zero outwards. Bin k holds the magnitudes in [k, k + 1) * 2^exponent; zeros are in
// bin 0 of the positive ones. The exponent is the smallest with which the largest magnitude has a
// bin (at least kMinExponent), so half of the bins or more are in use on that side. When a larger
// magnitude comes, neighbouring bins are added up in pairs. That loses nothing, so the state
// depends neither on the order in which values came, nor on how they were divided between states
// that are merged.
//
// Sums are exact (exact_sum.h). The moments of a batch depend on what a batch is, nothing else
// does.
struct StateWords {
  int64_t exponent;
  int64_t count;  // finite values
  int64_t zeros;
  int64_t nan_count;
  int64_t inf_count;    // of both signs
  int64_t batch_count;  // that had a finite value
  int64_t min_bits;     // of a double; +Inf where there is none
  int64_t max_bits;     // -Inf where there is none
  int64_t reserved[8];
  int64_t sum_magnitude[kExactSumWords];
  int64_t sum_batch_min[kExactSumWords];
  int64_t sum_batch_max[kExactSumWords];
};
inline constexpr int64_t kStateWords = sizeof(StateWords) / sizeof(int64_t);

// Scales are not smaller than this power of two, so neither are bins.
inline constexpr int64_t kMinExponent = -126;

// The words and counts of a row of kStateWords + 2 * bins integers. A pointer pair; it owns
// nothing.
struct State {
  StateWords* words;
  int64_t* counts;
  int64_t bins;  // on either side; a power of two

  State(int64_t* row, int64_t bins_a_side)
      : words(reinterpret_cast<StateWords*>(row)), counts(row + kStateWords), bins(bins_a_side) {}

  double min() const;
  double max() const;
  void widen(double low, double high) const;
};

// The exponent that the magnitude needs.
int64_t exponent_for(double magnitude, int64_t bins);

// Adds up what `shift` doublings of the width of the bins bring together, in one half of a
// histogram.
template <class Count>
void merge_bins(Count* half, int64_t bins, int64_t shift) {
  if (shift <= 0) return;
  if (shift > 32) shift = 32;
  for (int64_t k = 1; k < bins; ++k) {
    const Count here = half[k];
    half[k] = 0;
    half[k >> shift] += here;
  }
}

void clear(const State& state);
void grow(const State& state, int64_t exponent);
// Adds `other`, which has as many bins and is left alone but for its exponent, which grows to that
// of the sum.
void merge(const State& state, const State& other);

}  // namespace qatx
