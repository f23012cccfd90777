#include "qatx/kernels/observe.h"

#include <cmath>
#include <limits>

#include "element_testing.h"
#include "kernel_test.h"

namespace qatx::kernels {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

class ObserveTest : public KernelTest {
 protected:
  // Magnitudes below 8; some zeros of both signs, denormals, NaN and infinities.
  float value() {
    const float specials[] = {0.0f, -0.0f, kNan, kInf, -kInf, 1e-40f, -1e-40f, 7.9f, -7.9f};
    if (chance(0.2)) return specials[integer(0, 8)];
    return real(-7.9f, 7.9f) * std::exp2(static_cast<float>(-integer(0, 20)));
  }

  template <class T>
  void check(int64_t n, int64_t shift) {
    using Real = typename RealOf<T>::type;
    const auto& kernels = kernels_for<T>(row().observe, row().observe_f64);
    Buffer<T> x(n, shift * static_cast<int64_t>(sizeof(T)));
    for (T& element : x) element = Element<T>::make(value());

    BlockStatistics<Real> expected{static_cast<Real>(kInf), static_cast<Real>(-kInf), 0, 0, 0};
    Real lanes[16] = {};
    constexpr int32_t bins = 64;
    std::vector<uint32_t> counts(2 * bins, 0);
    for (int64_t i = 0; i < n; ++i) {
      const Real v = Element<T>::real(x[i]);
      if (!std::isfinite(v)) continue;
      ++expected.finite;
      expected.zeros += v == 0;
      expected.min = std::min<Real>(expected.min, v + 0);
      expected.max = std::max<Real>(expected.max, v + 0);
      lanes[i % 16] += std::abs(v);
      if (v != 0) ++counts[static_cast<size_t>(std::floor(std::abs(v) * 8)) + (v < 0 ? bins : 0)];
    }
    for (int width = 8; width > 0; width /= 2) {
      for (int i = 0; i < width; ++i) lanes[i] += lanes[i + width];
    }
    const BlockStatistics<Real> actual = kernels.statistics(x.data(), n);
    EXPECT_EQ(actual.min, expected.min);
    EXPECT_EQ(actual.max, expected.max);
    EXPECT_FALSE(std::signbit(actual.min) && actual.min == 0);
    EXPECT_EQ(actual.sum_magnitude, lanes[0]);
    EXPECT_EQ(actual.finite, expected.finite);
    EXPECT_EQ(actual.zeros, expected.zeros);

    Buffer<uint32_t> copies(kCountCopies * 2 * bins);
    for (uint32_t& count : copies) count = 7;
    kernels.count(x.data(), n, 8, bins, copies.data());
    ASSERT_TRUE(copies.zones_intact());
    for (int64_t bin = 0; bin < 2 * bins; ++bin) {
      uint32_t sum = 0;
      for (int64_t copy = 0; copy < kCountCopies; ++copy) sum += copies[copy * 2 * bins + bin] - 7;
      ASSERT_EQ(sum, counts[static_cast<size_t>(bin)]) << "bin " << bin << " of " << n;
    }
  }

  template <class T>
  void check_sizes() {
    for (int64_t n : {0, 1, 2, 15, 16, 17, 31, 32, 33, 100, 4095, 4096}) check<T>(n, n % 3);
  }
};

TEST_P(ObserveTest, Float) { check_sizes<float>(); }
TEST_P(ObserveTest, BFloat16) { check_sizes<BFloat16>(); }
TEST_P(ObserveTest, Half) { check_sizes<Half>(); }
TEST_P(ObserveTest, Double) { check_sizes<double>(); }

// What a power of two scales to the border of a bin is in the upper one, as exact arithmetic says.
TEST_P(ObserveTest, BordersBelongToTheUpperBin) {
  std::vector<uint32_t> counts(kCountCopies * 2 * 16, 0);
  const float x[] = {3.0f, std::nextafter(3.0f, 0.0f), -3.0f, std::nextafter(-3.0f, 0.0f), 15.99f};
  row().observe.f32.count(x, 5, 1.0f, 16, counts.data());
  const auto count = [&](size_t bin) {
    return counts[bin] + counts[bin + 32] + counts[bin + 64] + counts[bin + 96];
  };
  EXPECT_EQ(count(3), 1u);
  EXPECT_EQ(count(2), 1u);
  EXPECT_EQ(count(16 + 3), 1u);
  EXPECT_EQ(count(16 + 2), 1u);
  EXPECT_EQ(count(15), 1u);
}

// The largest histogram that the kernels allow.
TEST_P(ObserveTest, ManyBins) {
  constexpr int32_t bins = 32768;
  std::vector<uint32_t> counts(kCountCopies * 2 * bins, 0);
  std::vector<float> x(40);
  for (size_t i = 0; i < x.size(); ++i) x[i] = (i % 2 == 0 ? 1.0f : -1.0f) * 32767.5f;
  row().observe.f32.count(x.data(), 40, 1.0f, bins, counts.data());
  uint32_t positive = 0;
  uint32_t negative = 0;
  for (size_t copy = 0; copy < 4; ++copy) {
    positive += counts[copy * 2 * bins + 32767];
    negative += counts[copy * 2 * bins + 32768 + 32767];
  }
  EXPECT_EQ(positive, 20u);
  EXPECT_EQ(negative, 20u);
}

QATX_FOR_ALL_ROWS(ObserveTest);

}  // namespace
}  // namespace qatx::kernels
