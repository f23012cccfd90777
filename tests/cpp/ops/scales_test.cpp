#include "qatx/ops/scales.h"

#include <limits>

#include "../tensor_testing.h"

namespace qatx {
namespace {

using testing::floats;
using testing::same_bits;
using testing::scalar;

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

TEST(LearnedScaleTest, IsAlwaysPositiveAndInRange) {
  const at::Tensor raw =
      floats({0.5f, -0.5f, 0.0f, -0.0f, 1e-30f, -1e-30f, 1e30f, -1e30f, kInf, -kInf, kNan});
  EXPECT_TRUE(
      same_bits(learned_scale(raw), floats({0.5f, 0.5f, 0x1p-64f, 0x1p-64f, 0x1p-64f, 0x1p-64f,
                                            0x1p64f, 0x1p64f, 0x1p64f, 0x1p64f, 0x1p-64f})));
}

TEST(LearnedScaleTest, GradientHasTheSignOfRaw) {
  const at::Tensor raw =
      floats({0.5f, -0.5f, 0.0f, -1e-30f, 1e30f, kNan, 1.0f, 1.0f, -1.0f}).requires_grad_(true);
  learned_scale(raw).backward(floats({2, 2, 2, 2, 2, 2, kNan, kInf, -kInf}));
  EXPECT_TRUE(same_bits(raw.grad(), floats({2, -2, 2, -2, 2, 2, 0, 0, 0})));
}

TEST(LearnedScaleTest, AnyShape) {
  EXPECT_EQ(learned_scale(scalar(-2.0f)).item<float>(), 2.0f);
  EXPECT_EQ(learned_scale(at::empty({0}, at::kFloat)).sizes(), at::IntArrayRef({0}));
}

TEST(LearnedScaleTest, NeedsFloat32OrFloat64) {
  EXPECT_EQ(learned_scale(floats({-1.0f}).to(at::kDouble)).item<double>(), 1.0);
  EXPECT_ERROR(c10::TypeError, "raw must be float32 or float64, got Half",
               learned_scale(floats({1.0f}).to(at::kHalf)));
}

TEST(PowerOfTwoScaleTest, RoundsTheExponentToNearest) {
  // log2(1.41421354) < 0.5 < log2(1.4142137): neighbouring floats.
  const at::Tensor scale = floats({1.0f, 0.7f, 0.71f, 1.41421354f, 1.41421366f, 0x1p-64f, 3e9f});
  EXPECT_TRUE(same_bits(power_of_two_scale(scale),
                        floats({1.0f, 0.5f, 1.0f, 1.0f, 2.0f, 0x1p-64f, 0x1p31f})));
  const at::Tensor as_double = scalar(1.0f).to(at::kDouble).fill_(1.4142135623730949);
  EXPECT_EQ(power_of_two_scale(as_double).item<double>(), 1.0);
  EXPECT_EQ(power_of_two_scale(as_double.add(3e-16)).item<double>(), 2.0);
}

TEST(PowerOfTwoScaleTest, GradientGoesStraightThroughTheExponent) {
  const at::Tensor scale = floats({0.7f, 0.75f, 2.0f}).requires_grad_(true);
  power_of_two_scale(scale).backward(floats({1, 3, 5}));
  EXPECT_TRUE(same_bits(scale.grad(), floats({0.5f / 0.7f, 3 * (1 / 0.75f), 5})));
}

}  // namespace
}  // namespace qatx
