#include <algorithm>

#include "qatx/observers/range_method.h"
#include "qatx/observers/search.h"

namespace qatx {

Range mse_range(const RangeProblem& problem) {
  const Distribution& d = problem.distribution;
  const auto cost = [&](const Range& range) {
    return problem.error(range, problem.codes, problem.options.norm);
  };
  if (problem.codes.symmetric) {
    const int64_t limit = std::max(d.negative, d.positive());
    const Ends best = search_ends({0, limit}, false, [&](int64_t, int64_t size) {
      return cost(range_of_bins(d, size, size));
    });
    return range_of_bins(d, best.positive, best.positive);
  }
  const Ends best = search_ends({d.negative, d.positive()}, false, [&](int64_t low, int64_t high) {
    return cost(range_of_bins(d, low, high));
  });
  return range_of_bins(d, best.negative, best.positive);
}

}  // namespace qatx
