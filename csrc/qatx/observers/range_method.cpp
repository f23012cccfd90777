#include "qatx/observers/range_method.h"

#include <c10/util/Exception.h>

#include <algorithm>
#include <cmath>

namespace qatx {
namespace {

Range min_max(const RangeProblem& problem) {
  return {problem.distribution.min, problem.distribution.max};
}

Range moving_average(const RangeProblem& problem) {
  return {problem.distribution.mean_batch_min, problem.distribution.mean_batch_max};
}

// What `share` of the values lie below, counted from the low end or from the high end; linear
// within a bin. In bins, from the end.
double quantile(const std::vector<int64_t>& counts, double share, int64_t total) {
  const double wanted = share * static_cast<double>(total);
  double before = 0.0;
  double position = 0.0;
  for (const int64_t count : counts) {
    const auto here = static_cast<double>(count);
    if (before + here >= wanted && count > 0) return position + (wanted - before) / here;
    before += here;
    position += 1.0;
  }
  return position;
}

Range percentile(const RangeProblem& problem) {
  const Distribution& d = problem.distribution;
  const double share = problem.options.percentile / 100.0;
  if (problem.codes.symmetric) {
    const double size = quantile(counts_of_magnitudes(d), share, d.count) * d.width;
    return {std::max(std::min(d.min, 0.0), -size), std::min(std::max(d.max, 0.0), size)};
  }
  const auto zero = static_cast<double>(d.negative);
  const std::vector<int64_t> reversed(d.counts.rbegin(), d.counts.rend());
  const double high = quantile(d.counts, share, d.count) - zero;
  const double low = static_cast<double>(d.size()) - quantile(reversed, share, d.count) - zero;
  return {std::clamp(low * d.width, d.min, d.max), std::clamp(high * d.width, d.min, d.max)};
}

// Where both ends of an asymmetric range are learned, the paper says nothing.
Range lsq(const RangeProblem& problem) {
  const Distribution& d = problem.distribution;
  if (!problem.codes.symmetric && d.min < 0.0) return min_max(problem);
  const int64_t top =
      problem.codes.quant_max - (problem.codes.symmetric ? problem.codes.middle() : 0);
  const double extent = 2.0 * d.mean_magnitude * std::sqrt(static_cast<double>(top));
  return {std::max(d.min, -extent), std::min(d.max, extent)};
}

Range best(const RangeProblem& problem) {
  Range chosen = min_max(problem);
  double lowest = problem.error(chosen, problem.codes);
  for (const RangeMethod& method : range_methods()) {
    if (method.choose == best) continue;
    const Range range = method.choose(problem);
    const double error = problem.error(range, problem.codes);
    if (error < lowest) {
      lowest = error;
      chosen = range;
    }
  }
  return chosen;
}

}  // namespace

const std::vector<RangeMethod>& range_methods() {
  static const std::vector<RangeMethod> methods = {
      {"min_max", min_max},
      {"moving_average", moving_average},
      {"percentile", percentile},
      {"mse", mse_range},
      {"kl", kl_range},
      {"lsq", lsq},
      {"best", best},
  };
  return methods;
}

const RangeMethod& find_range_method(std::string_view name) {
  std::string names;
  for (const RangeMethod& method : range_methods()) {
    if (method.name == name) return method;
    names += (names.empty() ? "'" : ", '") + std::string(method.name) + "'";
  }
  TORCH_CHECK_VALUE(false, "method must be one of ", names, ", got '", name, "'");
}

void check_range_options(const RangeOptions& options) {
  TORCH_CHECK_VALUE(options.percentile > 50.0 && options.percentile <= 100.0,
                    "percentile must be more than 50 and at most 100, got ", options.percentile);
  TORCH_CHECK_VALUE(options.norm >= 1.0 && options.norm <= 10.0, "norm must be from 1 to 10, got ",
                    options.norm);
}

}  // namespace qatx
