#include "qatx/observers/range_method.h"

#include <cmath>
#include <random>

#include "../tensor_testing.h"
#include "qatx/core/qparams.h"
#include "qatx/observers/observer.h"

namespace qatx {
namespace {

using testing::floats;

std::vector<float> normal_values(size_t n, float mean, unsigned seed) {
  std::mt19937 engine(seed);
  std::normal_distribution<float> normal(mean, 1.0f);
  std::vector<float> values(n);
  for (float& value : values) value = normal(engine);
  return values;
}

std::pair<double, double> choose(const std::vector<float>& values, const QuantSpec& spec,
                                 const char* method, double percentile = 99.99, double norm = 2.0) {
  Observer observer(spec);
  observer.observe(floats(values));
  const ChosenRange chosen = observer.choose(spec, method, percentile, norm);
  return {chosen.low.item<double>(), chosen.high.item<double>()};
}

// The mean of |x - x_hat|^norm of the values themselves.
double true_error(const std::vector<float>& values, const QuantSpec& spec, double low, double high,
                  double norm) {
  const auto [scale, zero_point] =
      choose_qparams(low, high, spec.quant_min(), spec.quant_max(), spec.symmetric());
  double sum = 0.0;
  for (const float x : values) {
    const double q =
        std::clamp(std::nearbyint(static_cast<double>(x) / scale) + zero_point,
                   static_cast<double>(spec.quant_min()), static_cast<double>(spec.quant_max()));
    sum += std::pow(std::abs(x - (q - zero_point) * scale), norm);
  }
  return sum / static_cast<double>(values.size());
}

const std::vector<QuantSpec> kSpecs = {
    QuantSpec(8, true, true),  QuantSpec(8, false, false),
    QuantSpec(4, true, true),  QuantSpec(4, false, true),
    QuantSpec(4, true, false), QuantSpec(3, false, false),
    QuantSpec(2, true, true),  QuantSpec(2, true, true, std::nullopt, true)};

TEST(RangeMethod, MinMaxIsExact) {
  const auto [low, high] = choose({0.1f, -0.3f, 0.7f}, kSpecs[0], "min_max");
  EXPECT_EQ(static_cast<float>(low), -0.3f);
  EXPECT_EQ(static_cast<float>(high), 0.7f);
}

TEST(RangeMethod, MovingAverageIsTheMeanOfTheBatches) {
  Observer observer(kSpecs[1]);
  observer.observe(floats({-1.0f, 2.0f}));
  observer.observe(floats({-3.0f, 5.0f, 0.0f}));
  observer.observe(floats({}));
  observer.observe(floats({std::nanf("")}));
  const ChosenRange chosen = observer.choose(kSpecs[1], "moving_average");
  EXPECT_EQ(chosen.low.item<double>(), -2.0);
  EXPECT_EQ(chosen.high.item<double>(), 3.5);
}

TEST(RangeMethod, PercentileIsThatOfTheSortedValues) {
  std::vector<float> values = normal_values(20000, 0.5f, 1);
  const double width = 2 * 6.0 / Observer::kBins;
  for (const double p : {60.0, 90.0, 99.0, 99.9, 100.0}) {
    const auto [low, high] = choose(values, kSpecs[1], "percentile", p);
    std::vector<float> sorted = values;
    std::sort(sorted.begin(), sorted.end());
    const auto cut = static_cast<size_t>(std::ceil(p / 100 * 20000)) - 1;
    EXPECT_NEAR(high, sorted[cut], width) << p;
    EXPECT_NEAR(low, sorted[19999 - cut], width) << p;
    for (float& value : sorted) value = std::abs(value);
    std::sort(sorted.begin(), sorted.end());
    const auto [minus, plus] = choose(values, kSpecs[0], "percentile", p);
    EXPECT_NEAR(std::max(-minus, plus), sorted[cut], width) << p;
  }
}

TEST(RangeMethod, LsqIsTwiceTheMeanOverTheRootOfTheCodes) {
  std::vector<float> values = normal_values(4998, 0.0f, 2);
  values.push_back(30.0f);
  values.push_back(-30.0f);
  double sum = 0.0;
  for (const float value : values) sum += std::abs(value);
  const auto [low, high] = choose(values, kSpecs[2], "lsq");
  EXPECT_NEAR(high / 7, 2 * sum / 5000 / std::sqrt(7.0), 1e-6);
  EXPECT_EQ(low, -high);
}

// Against all ranges of a fine grid, by the error of the values themselves.
TEST(RangeMethod, MseFindsTheBestRange) {
  for (const double norm : {2.0, 2.4}) {
    for (const float mean : {0.0f, 2.5f}) {
      std::vector<float> values = normal_values(4000, mean, 3);
      values.push_back(20.0f);
      for (const QuantSpec& spec : kSpecs) {
        const auto [low, high] = choose(values, spec, "mse", 99.99, norm);
        double best = true_error(values, spec, -2.0, 20.0, norm);
        for (int i = 1; i <= 60; ++i) {
          for (int j = spec.symmetric() ? 60 : 0; j <= 60; ++j) {
            const double top = spec.symmetric() ? 20.0 * i / 60 : 20.0 * i / 60;
            const double bottom = spec.symmetric() ? -top : -4.0 * j / 60;
            best = std::min(best, true_error(values, spec, bottom, top, norm));
          }
        }
        EXPECT_LE(true_error(values, spec, low, high, norm), 1.02 * best)
            << spec.repr() << " norm " << norm << " mean " << mean;
      }
    }
  }
}

TEST(RangeMethod, ExpectedErrorIsThatOfTheValues) {
  const std::vector<float> values = normal_values(50000, 0.7f, 4);
  for (const QuantSpec& spec : kSpecs) {
    for (const char* method : {"min_max", "percentile", "mse"}) {
      Observer observer(spec);
      observer.observe(floats(values));
      const ChosenRange chosen = observer.choose(spec, method, 95.0);
      const double low = chosen.low.item<double>();
      const double high = chosen.high.item<double>();
      const double error = true_error(values, spec, low, high, 2.0);
      EXPECT_NEAR(chosen.error.item<double>(), error, 0.02 * error) << spec.repr() << method;
      const auto [scale, zero_point] =
          choose_qparams(low, high, spec.quant_min(), spec.quant_max(), spec.symmetric());
      double square = 0.0;
      int64_t clipped = 0;
      for (const float x : values) {
        const float q = x / scale + zero_point;
        square += static_cast<double>(x) * x;
        clipped += q < static_cast<float>(spec.quant_min()) - 0.5f ||
                   q > static_cast<float>(spec.quant_max()) + 0.5f;
      }
      EXPECT_NEAR(chosen.mean_square.item<double>(), square / 50000, 0.001 * square / 50000);
      EXPECT_NEAR(chosen.clipped_share.item<double>(), static_cast<double>(clipped) / 50000, 0.002)
          << spec.repr() << method;
      if (std::string(method) == "min_max") {
        EXPECT_EQ(chosen.clipped_share.item<double>(), 0.0) << spec.repr();
      }
    }
  }
}

TEST(RangeMethod, BestIsTheOneWithTheLowestError) {
  std::vector<float> values = normal_values(4000, 0.0f, 5);
  values.push_back(30.0f);
  for (const QuantSpec& spec : kSpecs) {
    Observer observer(spec);
    observer.observe(floats(values));
    double lowest = HUGE_VAL;
    for (const std::string& method : range_method_names()) {
      if (method != "best") {
        lowest = std::min(lowest, observer.choose(spec, method).error.item<double>());
      }
    }
    EXPECT_EQ(observer.choose(spec, "best").error.item<double>(), lowest);
  }
}

// Every method gives a range that holds 0 or gives a valid scale, whatever the values are.
TEST(RangeMethod, StrangeDistributionsAreDefined) {
  const std::vector<std::vector<float>> cases = {
      {0.0f},
      {0.0f, 0.0f, -0.0f},
      {5.0f},
      {5.0f, 5.0f, 5.0f},
      {-3.0f, -3.0f},
      {1e-44f},
      {-1e-44f},
      {3e38f, -3e38f},
      {1e-30f, 1e30f},
      {1.0f, 2.0f, 3.0f, 4.0f},
      {-0.5f, -9.0f, -1.0f},
  };
  for (const auto& values : cases) {
    for (const QuantSpec& spec : kSpecs) {
      for (const std::string& method : range_method_names()) {
        const auto [low, high] = choose(values, spec, method.c_str());
        ASSERT_TRUE(std::isfinite(low) && std::isfinite(high) && low <= high)
            << method << " " << spec.repr() << " " << values[0] << ": " << low << ", " << high;
        const auto [scale, zero_point] =
            choose_qparams(low, high, spec.quant_min(), spec.quant_max(), spec.symmetric());
        EXPECT_TRUE(std::isnormal(scale) && scale > 0);
      }
    }
  }
}

TEST(RangeMethod, BadArgumentsAreNamed) {
  Observer observer(kSpecs[0]);
  observer.observe(floats({1.0f}));
  EXPECT_ERROR(c10::ValueError, "method must be one of 'min_max', 'moving_average'",
               observer.choose(kSpecs[0], "entropy"));
  EXPECT_ERROR(c10::ValueError, "percentile must be more than 50",
               observer.choose(kSpecs[0], "percentile", 50.0));
  EXPECT_ERROR(c10::ValueError, "norm must be from 1 to 10",
               observer.choose(kSpecs[0], "mse", 99.0, 0.5));
}

}  // namespace
}  // namespace qatx
