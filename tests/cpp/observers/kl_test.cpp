// The divergence against an oracle that does, in float64 and one step after the other, what
// S. Migacz, "8-bit inference with TensorRT" (GTC 2017), page 38, says in words.

#include <ATen/ops/full.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "../tensor_testing.h"
#include "qatx/observers/observer.h"
#include "qatx/observers/range_method.h"

namespace qatx {
namespace {

using testing::Random;

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// "bins" are those of the values in order; the candidate keeps bins first .. last - 1.
double oracle(const std::vector<double>& bins, size_t first, size_t last, size_t levels) {
  double inside = 0.0;
  for (size_t i = first; i < last; ++i) inside += bins[i];
  if (inside == 0.0) return kInfinity;
  // reference_distribution_P = bin[first .. last), with the outliers added to its ends
  std::vector<double> p(bins.begin() + static_cast<long>(first),
                        bins.begin() + static_cast<long>(last));
  // candidate_distribution_Q comes from the bins without the outliers
  const std::vector<double> kept = p;
  for (size_t i = 0; i < first; ++i) p.front() += bins[i];
  for (size_t i = last; i < bins.size(); ++i) p.back() += bins[i];
  // quantize the kept bins into `levels`; the remainder is spread evenly
  std::vector<double> q(p.size(), 0.0);
  for (size_t level = 0; level < levels; ++level) {
    const size_t begin = level * p.size() / levels;
    const size_t end = (level + 1) * p.size() / levels;
    double sum = 0.0;
    double nonzero = 0.0;
    for (size_t i = begin; i < end; ++i) {
      sum += kept[i];
      nonzero += p[i] != 0.0 ? 1.0 : 0.0;
    }
    // (docs/calibration.md: outliers alone in a level count as one value)
    if (sum == 0.0) sum = 1.0;
    // expand, to where P is not zero
    for (size_t i = begin; i < end; ++i) q[i] = p[i] != 0.0 ? sum / nonzero : 0.0;
  }
  double sum_p = 0.0;
  double sum_q = 0.0;
  for (size_t i = 0; i < p.size(); ++i) {
    sum_p += p[i];
    sum_q += q[i];
  }
  double divergence = 0.0;
  for (size_t i = 0; i < p.size(); ++i) {
    if (p[i] == 0.0) continue;
    divergence += p[i] / sum_p * std::log((p[i] / sum_p) / (q[i] / sum_q));
  }
  return divergence;
}

enum class Shape { normal, bimodal, one_sided, negative, gaps, outliers, peaks };

constexpr int64_t kBins = 256;

// A state with a histogram of that shape.
std::vector<int64_t> row_of(Random& random, Shape shape) {
  std::vector<int64_t> row(static_cast<size_t>(kStateWords + 2 * kBins), 0);
  const State state(row.data(), kBins);
  clear(state);
  state.words->exponent = -7;
  for (int64_t k = 0; k < 2 * kBins; ++k) {
    const double x = static_cast<double>(k < kBins ? k : kBins - 1 - k) / 64.0;
    double density = std::exp(-x * x);
    if (shape == Shape::bimodal) {
      density = std::exp(-(x - 2) * (x - 2) * 4) + 0.3 * std::exp(-(x + 1) * (x + 1) * 9);
    }
    if ((shape == Shape::one_sided && x < 0) || (shape == Shape::negative && x > 0)) density = 0;
    if (shape == Shape::gaps && random.chance(0.6)) density = 0;
    auto count = static_cast<int64_t>(density * 1e5 * random.real(0.8f, 1.2f));
    if (shape == Shape::peaks && random.chance(0.05)) count *= random.integer(2, 50);
    if (shape == Shape::outliers && random.chance(0.05)) count += random.integer(1, 20);
    state.counts[k] = count;
    state.words->count += count;
  }
  state.counts[kBins - 1] += shape == Shape::negative ? 0 : 1;
  state.counts[2 * kBins - 1] += shape == Shape::one_sided ? 0 : 1;
  state.words->count += shape == Shape::negative || shape == Shape::one_sided ? 1 : 2;
  state.widen(shape == Shape::one_sided ? 0.0 : -2.0, shape == Shape::negative ? 0.0 : 2.0);
  return row;
}

// What docs/calibration.md says of peaks: no bin counts more than twice the mean of those of the
// eight bins on either side that are not empty, or than 16.
std::vector<double> cut_peaks(const std::vector<double>& bins) {
  std::vector<double> cut;
  for (size_t i = 0; i < bins.size(); ++i) {
    std::vector<double> neighbours;
    for (size_t distance = 1; distance <= 8; ++distance) {
      if (i >= distance) neighbours.push_back(bins[i - distance]);
      if (i + distance < bins.size()) neighbours.push_back(bins[i + distance]);
    }
    std::erase(neighbours, 0.0);
    double most = bins[i];
    if (!neighbours.empty()) {
      double sum = 0.0;
      for (const double count : neighbours) sum += count;
      most = std::max(16.0, std::floor(2.0 * sum / static_cast<double>(neighbours.size())));
    }
    cut.push_back(std::min(bins[i], most));
  }
  return cut;
}

// The candidates that docs/calibration.md describes, with the oracle's divergence.
std::pair<int64_t, int64_t> oracle_choice(const std::vector<double>& bins, int64_t negative,
                                          int64_t positive, int64_t levels, double& lowest) {
  const auto cost = [&](int64_t n, int64_t p) {
    if (n + p <= levels) return kInfinity;
    return oracle(bins, static_cast<size_t>(negative - n), static_cast<size_t>(negative + p),
                  static_cast<size_t>(levels));
  };
  std::pair<int64_t, int64_t> best{negative, positive};
  lowest = cost(negative, positive);
  const auto look = [&](int64_t n, int64_t p) {
    const double value = cost(n, p);
    if (value < lowest) {
      lowest = value;
      best = {n, p};
    }
  };
  if (negative == 0 || positive == 0) {
    for (int64_t n = 0; n <= negative; ++n) {
      for (int64_t p = 0; p <= positive; ++p) look(n, p);
    }
    return best;
  }
  const auto step = [](int64_t size, int i) {
    return static_cast<int64_t>(std::ceil(static_cast<double>(size) * i / 64));
  };
  for (int i = 0; i <= 64; ++i) {
    for (int j = 0; j <= 64; ++j) look(step(negative, i), step(positive, j));
  }
  const auto [n0, p0] = best;
  for (int64_t n = std::max<int64_t>(0, n0 - step(negative, 1));
       n <= std::min(negative, n0 + step(negative, 1)); ++n) {
    for (int64_t p = std::max<int64_t>(0, p0 - step(positive, 1));
         p <= std::min(positive, p0 + step(positive, 1)); ++p) {
      look(n, p);
    }
  }
  return best;
}

class KlTest : public ::testing::TestWithParam<Shape> {};

TEST_P(KlTest, ChoosesWhatTheOracleChooses) {
  Random random(11);
  for (const bool symmetric : {true, false}) {
    for (int64_t bits = 2; bits <= 8; ++bits) {
      for (const bool with_sign : {true, false}) {
        std::vector<int64_t> row = row_of(random, GetParam());
        const Distribution d{State(row.data(), kBins)};
        const QuantizationError error(d);
        const QuantSpec spec(bits, with_sign, symmetric);
        const Codes codes{spec.quant_min(), spec.quant_max(), symmetric};

        std::vector<double> bins(d.counts.begin(), d.counts.end());
        int64_t negative = d.negative;
        int64_t positive = d.positive();
        if (symmetric) {
          positive = std::max(negative, positive);
          bins.assign(static_cast<size_t>(positive), 0.0);
          for (int64_t i = 0; i < d.size(); ++i) {
            const int64_t k = i < d.negative ? d.negative - 1 - i : i - d.negative;
            bins[static_cast<size_t>(k)] += static_cast<double>(d.counts[static_cast<size_t>(i)]);
          }
          negative = 0;
        }
        const int64_t levels = symmetric ? int64_t{1} << (bits - 1) : int64_t{1} << bits;
        double lowest = 0.0;
        const auto [n, p] = oracle_choice(cut_peaks(bins), negative, positive, levels, lowest);
        const Range expected = symmetric ? range_of_bins(d, p, p) : range_of_bins(d, n, p);
        const Range actual = kl_range({d, error, codes, {}});
        EXPECT_EQ(actual.low, expected.low) << spec.repr();
        EXPECT_EQ(actual.high, expected.high) << spec.repr();
        if (std::isfinite(lowest)) {
          EXPECT_NEAR(kl_divergence(d, codes, n, p), lowest, 1e-9 * std::max(1.0, lowest));
        }
      }
    }
  }
}

// Any candidate, also those that the search does not look at.
TEST_P(KlTest, DivergenceIsThatOfTheOracle) {
  Random random(12);
  for (int trial = 0; trial < 200; ++trial) {
    std::vector<int64_t> row = row_of(random, GetParam());
    const Distribution d{State(row.data(), kBins)};
    const QuantSpec spec(random.integer(2, 8), false, false);
    const Codes codes{spec.quant_min(), spec.quant_max(), false};
    const std::vector<double> bins = cut_peaks({d.counts.begin(), d.counts.end()});
    const int64_t n = random.integer(0, d.negative);
    const int64_t p = random.integer(0, d.positive());
    const double expected =
        oracle(bins, static_cast<size_t>(d.negative - n), static_cast<size_t>(d.negative + p),
               static_cast<size_t>(spec.quant_max() + 1));
    const double actual = kl_divergence(d, codes, n, p);
    if (std::isinf(expected)) {
      EXPECT_EQ(actual, expected) << n << " " << p;
    } else {
      EXPECT_NEAR(actual, expected, 1e-9 * std::max(1.0, expected)) << n << " " << p;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, KlTest,
                         ::testing::Values(Shape::normal, Shape::bimodal, Shape::one_sided,
                                           Shape::negative, Shape::gaps, Shape::outliers,
                                           Shape::peaks));

// A far outlier is cut off, where min-max would spend nearly all codes on nothing.
TEST(Kl, CutsOffOutliers) {
  Random random(13);
  const QuantSpec spec(8, true, true);
  Observer observer(spec);
  observer.observe(testing::random_floats(random, {100000}, -1.0f, 1.0f));
  observer.observe(testing::floats({40.0f}));
  const double high = observer.choose(spec, "kl").high.item<double>();
  EXPECT_GE(high, 0.9);
  EXPECT_LE(high, 10.0);
}

// The background of images: a few values that very many elements have do not change the range.
TEST(Kl, PeaksMakeNoDifference) {
  Random random(14);
  const QuantSpec spec(8, false, false);
  Observer plain(spec);
  Observer peaks(spec);
  const at::Tensor x = testing::random_floats(random, {100000}, 0.0f, 5.0f);
  plain.observe(x);
  peaks.observe(x);
  for (const float value : {0.13f, 0.6f, 0.61f, 1.1f}) peaks.observe(at::full({40000}, value));
  const double wanted = plain.choose(spec, "kl").high.item<double>();
  EXPECT_NEAR(peaks.choose(spec, "kl").high.item<double>(), wanted, 0.05 * wanted);
}

// What is behind a ReLU: half of the values are 0, which every range holds exactly.
TEST(Kl, ZerosMakeNoDifference) {
  Random random(7);
  std::vector<float> values(20000);
  for (float& x : values) {
    x = 0.0f;
    for (int i = 0; i < 6; ++i) x += random.real(-1.0f, 1.0f);
    x = std::abs(x);
  }
  std::vector<float> with_zeros = values;
  with_zeros.resize(2 * values.size(), 0.0f);
  for (const QuantSpec& spec :
       {QuantSpec(8, false, false), QuantSpec(8, true, true), QuantSpec(4, false, false)}) {
    Observer observer(spec);
    observer.observe(testing::floats(values));
    Observer other(spec);
    other.observe(testing::floats(with_zeros));
    const ChosenRange chosen = observer.choose(spec, "kl");
    const ChosenRange same = other.choose(spec, "kl");
    EXPECT_EQ(same.low.item<double>(), chosen.low.item<double>());
    EXPECT_EQ(same.high.item<double>(), chosen.high.item<double>());
    EXPECT_GT(chosen.high.item<double>(), 2.0);
  }
  Observer zeros(QuantSpec(8));
  zeros.observe(testing::floats({0.0f, 0.0f}));
  EXPECT_EQ(zeros.choose(QuantSpec(8), "kl").high.item<double>(), 0.0);
}

}  // namespace
}  // namespace qatx
