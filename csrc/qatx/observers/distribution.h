#pragma once

#include <cstdint>
#include <vector>

#include "qatx/observers/state.h"

namespace qatx {

// The integer codes that a range is to be spread over.
struct Codes {
  int64_t quant_min;
  int64_t quant_max;
  bool symmetric;

  // The code of 0 where symmetric.
  int64_t middle() const { return quant_min < 0 ? 0 : (quant_max + 1) / 2; }
};

// A range of values, in their unit; low <= high.
struct Range {
  double low;
  double high;
};

// The histogram of a state with at least one finite value, in order of the values and without the
// empty bins at its ends: bin i holds the values from (i - negative) * width, away from zero.
struct Distribution {
  explicit Distribution(const State& state);

  int64_t size() const { return static_cast<int64_t>(counts.size()); }
  int64_t positive() const { return size() - negative; }

  std::vector<int64_t> counts;  // with zeros
  int64_t negative;             // how many of the bins are below zero
  double width;                 // of a bin
  double min;
  double max;
  int64_t count;
  int64_t zeros;
  double mean_magnitude;
  double mean_batch_min;
  double mean_batch_max;
};

// The counts of the magnitudes, from zero outwards.
std::vector<int64_t> counts_of_magnitudes(const Distribution& distribution);

// The range from -negative to positive bins, and not wider than the values.
Range range_of_bins(const Distribution& distribution, int64_t negative, int64_t positive);

}  // namespace qatx
