#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "qatx/observers/range_method.h"
#include "qatx/observers/search.h"

// Migacz, "8-bit inference with TensorRT", GTC 2017, with any number of levels and both ends.

namespace qatx {
namespace {

double times_log(double x) { return x > 0.0 ? x * std::log(x) : 0.0; }

// Sums over the first bins of a histogram, from which the divergence of any stretch of bins takes
// time in proportion to the number of levels only.
class Divergence {
 public:
  Divergence(std::vector<int64_t> counts, int64_t levels)
      : counts_(std::move(counts)), levels_(levels) {
    before_.reserve(counts_.size() + 1);
    Sums sums{0, 0, 0.0};
    before_.push_back(sums);
    for (const int64_t count : counts_) {
      sums.count += count;
      sums.nonzero += count > 0;
      sums.entropy += times_log(static_cast<double>(count));
      before_.push_back(sums);
    }
  }

  // P: bins begin .. end - 1, with all that lies outside in its first and last bin. Q: the same
  // bins without what lies outside, merged into levels and spread again over the bins where P is
  // not 0. Both normalised. A level with nothing but what lies outside would make the divergence
  // infinite, and outliers beyond a gap could not be clipped: it counts as having one value.
  // Infinite where everything lies outside.
  double operator()(int64_t begin, int64_t end) const {
    const Sums& from = at(begin);
    const Sums& to = at(end);
    const int64_t total = before_.back().count;
    const int64_t inside = to.count - from.count;
    if (end <= begin || inside == 0) return std::numeric_limits<double>::infinity();
    const int64_t below = from.count;
    const int64_t above = total - to.count;
    int64_t alone = 0;  // levels with nothing but what lies outside
    double sum = to.entropy - from.entropy + edge(begin, end, below, above);
    int64_t first = begin;
    for (int64_t level = 0; level < levels_; ++level) {
      const int64_t last = begin + (level + 1) * (end - begin) / levels_;
      if (last == first) continue;
      int64_t q = at(last).count - at(first).count;
      int64_t p = q;
      int64_t nonzero = at(last).nonzero - at(first).nonzero;
      if (first == begin && below > 0) {
        p += below;
        nonzero += counts_[static_cast<size_t>(begin)] == 0;
      }
      if (last == end && above > 0) {
        p += above;
        const bool is_counted = first == begin && end - begin == 1 && below > 0;
        nonzero += counts_[static_cast<size_t>(end - 1)] == 0 && !is_counted;
      }
      if (p > 0) {
        if (q == 0) {
          q = 1;
          ++alone;
        }
        sum -= static_cast<double>(p) *
               std::log(static_cast<double>(q) / static_cast<double>(nonzero));
      }
      first = last;
    }
    const auto n = static_cast<double>(total);
    return sum / n - std::log(n) + std::log(static_cast<double>(inside + alone));
  }

 private:
  struct Sums {
    int64_t count;
    int64_t nonzero;
    double entropy;  // of count * log(count)
  };

  const Sums& at(int64_t i) const { return before_[static_cast<size_t>(i)]; }

  // What the values outside change in the sum of p * log(p).
  double edge(int64_t begin, int64_t end, int64_t below, int64_t above) const {
    const auto change = [&](int64_t bin, int64_t more) {
      const auto count = static_cast<double>(counts_[static_cast<size_t>(bin)]);
      return times_log(count + static_cast<double>(more)) - times_log(count);
    };
    if (end - begin == 1) return change(begin, below + above);
    return change(begin, below) + change(end - 1, above);
  }

  std::vector<int64_t> counts_;
  int64_t levels_;
  std::vector<Sums> before_;
};

// The codes that the magnitudes (symmetric) or the values fall to.
int64_t levels_of(const Codes& codes) {
  return codes.quant_max - (codes.symmetric ? codes.middle() : codes.quant_min) + 1;
}

// What a bin counts at most: kPeak times the mean of its neighbours that are not empty, and never
// less than a few values.
constexpr int64_t kPeak = 2;
constexpr int64_t kNeighbours = 8;  // on each side
constexpr int64_t kFew = 16;

// Cuts peaks: a value that very many elements have (the background of an image) is rounded once,
// whatever the range is, and its bin says nothing about how finely its neighbours have to be kept
// apart.
std::vector<int64_t> without_peaks(const std::vector<int64_t>& counts) {
  const auto n = static_cast<int64_t>(counts.size());
  std::vector<int64_t> cut = counts;
  for (int64_t i = 0; i < n; ++i) {
    int64_t sum = 0;
    int64_t filled = 0;
    for (int64_t k = std::max<int64_t>(0, i - kNeighbours); k < std::min(n, i + kNeighbours + 1);
         ++k) {
      if (k == i) continue;
      sum += counts[static_cast<size_t>(k)];
      filled += counts[static_cast<size_t>(k)] > 0;
    }
    int64_t& count = cut[static_cast<size_t>(i)];
    if (filled > 0) count = std::min(count, std::max(kFew, kPeak * sum / filled));
  }
  return cut;
}

// The counts that the divergence is of: those of the magnitudes, or of the values, less zeros,
// which are a code whatever the range is (behind a ReLU they would be half of the first bin), and
// peaks.
std::vector<int64_t> counts_for_divergence(const Distribution& d, bool magnitudes) {
  std::vector<int64_t> counts = magnitudes ? counts_of_magnitudes(d) : d.counts;
  const auto first = static_cast<size_t>(magnitudes ? 0 : d.negative);
  if (first < counts.size()) counts[first] -= d.zeros;
  return without_peaks(counts);
}

// How the ends map to the bins of the divergence.
struct Problem {
  Problem(const Distribution& d, const Codes& codes)
      : levels(levels_of(codes)),
        divergence(counts_for_divergence(d, codes.symmetric), levels),
        limit(codes.symmetric ? Ends{0, std::max(d.negative, d.positive())}
                              : Ends{d.negative, d.positive()}) {}

  double operator()(int64_t negative, int64_t positive) const {
    return divergence(limit.negative - negative, limit.negative + positive);
  }

  int64_t levels;
  Divergence divergence;
  Ends limit;
};

}  // namespace

double kl_divergence(const Distribution& distribution, const Codes& codes, int64_t negative,
                     int64_t positive) {
  return Problem(distribution, codes)(negative, positive);
}

Range kl_range(const RangeProblem& problem) {
  const Distribution& d = problem.distribution;
  const Problem cost(d, problem.codes);
  const bool one_sided = cost.limit.negative == 0 || cost.limit.positive == 0;
  const Ends best = search_ends(cost.limit, one_sided, [&](int64_t negative, int64_t positive) {
    // As many bins as levels, or fewer, would lose nothing but what is clipped.
    if (negative + positive <= cost.levels) return std::numeric_limits<double>::infinity();
    return cost(negative, positive);
  });
  if (problem.codes.symmetric) return range_of_bins(d, best.positive, best.positive);
  return range_of_bins(d, best.negative, best.positive);
}

}  // namespace qatx
