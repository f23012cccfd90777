#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>

namespace qatx {

// The two ends of a range, in bins from zero outwards.
struct Ends {
  int64_t negative;
  int64_t positive;
};

// How finely each end is divided first.
inline constexpr int64_t kGrid = 64;

// The ends with the smallest cost(negative, positive), the first of them where there are several.
// All candidates where `every`, which needs one of the limits to be 0; otherwise
// limit * 0/kGrid .. kGrid/kGrid for each end (rounded up), then everything within limit / kGrid
// (rounded up) of the best. The full range, {limit.negative, limit.positive}, is always a
// candidate.
template <class Cost>
Ends search_ends(Ends limit, bool every, const Cost& cost) {
  Ends best = limit;
  double lowest = cost(limit.negative, limit.positive);
  const auto try_ends = [&](int64_t negative, int64_t positive) {
    if (negative + positive == 0) return;
    const double value = cost(negative, positive);
    if (value < lowest) {
      lowest = value;
      best = {negative, positive};
    }
  };
  const auto try_all = [&](Ends from, Ends to) {
    for (int64_t n = from.negative; n <= to.negative; ++n) {
      for (int64_t p = from.positive; p <= to.positive; ++p) try_ends(n, p);
    }
  };
  if (every) {
    try_all({0, 0}, limit);
    return best;
  }
  const auto on_grid = [](int64_t size, int64_t i) { return (size * i + kGrid - 1) / kGrid; };
  const auto last = [](int64_t size) { return size == 0 ? 0 : kGrid; };
  for (int64_t n = 0; n <= last(limit.negative); ++n) {
    for (int64_t p = 0; p <= last(limit.positive); ++p) {
      try_ends(on_grid(limit.negative, n), on_grid(limit.positive, p));
    }
  }
  const Ends reach{on_grid(limit.negative, 1), on_grid(limit.positive, 1)};
  try_all({std::max<int64_t>(0, best.negative - reach.negative),
           std::max<int64_t>(0, best.positive - reach.positive)},
          {std::min(limit.negative, best.negative + reach.negative),
           std::min(limit.positive, best.positive + reach.positive)});
  return best;
}

}  // namespace qatx
