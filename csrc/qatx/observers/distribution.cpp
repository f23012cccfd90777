#include "qatx/observers/distribution.h"

#include <algorithm>
#include <cmath>

namespace qatx {
namespace {

int64_t bins_in_use(const int64_t* half, int64_t bins) {
  while (bins > 0 && half[bins - 1] == 0) --bins;
  return bins;
}

}  // namespace

Distribution::Distribution(const State& state)
    : negative(bins_in_use(state.counts + state.bins, state.bins)),
      width(std::ldexp(1.0, static_cast<int>(state.words->exponent))),
      min(state.min()),
      max(state.max()),
      count(state.words->count),
      zeros(state.words->zeros) {
  const int64_t positive_bins = bins_in_use(state.counts, state.bins);
  counts.reserve(static_cast<size_t>(negative + positive_bins));
  for (int64_t k = negative - 1; k >= 0; --k) counts.push_back(state.counts[state.bins + k]);
  counts.insert(counts.end(), state.counts, state.counts + positive_bins);
  const auto elements = static_cast<double>(count);
  const auto batches = static_cast<double>(state.words->batch_count);
  mean_magnitude = value_of_exact_sum(state.words->sum_magnitude) / elements;
  mean_batch_min = value_of_exact_sum(state.words->sum_batch_min) / batches;
  mean_batch_max = value_of_exact_sum(state.words->sum_batch_max) / batches;
}

std::vector<int64_t> counts_of_magnitudes(const Distribution& d) {
  std::vector<int64_t> counts(static_cast<size_t>(std::max(d.negative, d.positive())), 0);
  for (int64_t i = 0; i < d.size(); ++i) {
    const int64_t k = i < d.negative ? d.negative - 1 - i : i - d.negative;
    counts[static_cast<size_t>(k)] += d.counts[static_cast<size_t>(i)];
  }
  return counts;
}

Range range_of_bins(const Distribution& distribution, int64_t negative, int64_t positive) {
  const double low = -static_cast<double>(negative) * distribution.width;
  const double high = static_cast<double>(positive) * distribution.width;
  return {std::max(low, std::min(distribution.min, 0.0)),
          std::min(high, std::max(distribution.max, 0.0))};
}

}  // namespace qatx
