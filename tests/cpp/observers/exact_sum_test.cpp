#include "qatx/observers/exact_sum.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

#include "../testing.h"

namespace qatx {
namespace {

using Sum = std::array<int64_t, kExactSumWords>;

Sum sum_of(const std::vector<double>& values) {
  Sum sum{};
  for (const double value : values) add_to_exact_sum(sum.data(), value);
  return sum;
}

TEST(ExactSum, IsTheNumberItself) {
  for (const double value : {0.0, 1.0, -1.0, 0.1, -1e-30, 1e30, 3.4e38, 1.5 * 0x1p-140, -0x1p200}) {
    EXPECT_EQ(value_of_exact_sum(sum_of({value}).data()), value) << value;
  }
}

TEST(ExactSum, ForgetsNothing) {
  EXPECT_EQ(value_of_exact_sum(sum_of({1e30, 1.0, -1e30}).data()), 1.0);
  EXPECT_EQ(value_of_exact_sum(sum_of({-1e30, 1e-20, 1e30}).data()), 1e-20);
  EXPECT_EQ(value_of_exact_sum(sum_of({0.1, -0.1}).data()), 0.0);
}

TEST(ExactSum, OrderAndPartsDoNotMatter) {
  testing::Random random(3);
  std::vector<double> values;
  for (int i = 0; i < 1000; ++i) {
    values.push_back(
        std::ldexp(random.real(-1.0f, 1.0f), static_cast<int>(random.integer(-60, 60))));
  }
  const Sum expected = sum_of(values);
  std::vector<double> reversed(values.rbegin(), values.rend());
  EXPECT_EQ(sum_of(reversed), expected);
  Sum first = sum_of({values.begin(), values.begin() + 300});
  const Sum second = sum_of({values.begin() + 300, values.end()});
  merge_exact_sums(first.data(), second.data());
  EXPECT_EQ(first, expected);
}

TEST(ExactSum, CutsOffAtItsLimits) {
  EXPECT_EQ(value_of_exact_sum(sum_of({0x1p-300}).data()), 0.0);
  EXPECT_EQ(value_of_exact_sum(sum_of({-1e300}).data()), -0x1p250);
}

}  // namespace
}  // namespace qatx
