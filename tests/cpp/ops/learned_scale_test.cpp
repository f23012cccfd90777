#include "qatx/ops/learned_scale.h"

#include <limits>

#include "../tensor_testing.h"

namespace qatx {
namespace {

using testing::floats;
using testing::same_bits;

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
  EXPECT_EQ(learned_scale(testing::scalar(-2.0f)).item<float>(), 2.0f);
  EXPECT_EQ(learned_scale(at::empty({0}, at::kFloat)).sizes(), at::IntArrayRef({0}));
}

TEST(LearnedScaleTest, NeedsFloat32) {
  EXPECT_ERROR(c10::TypeError, "raw must be float32, got Double",
               learned_scale(floats({1.0f}).to(at::kDouble)));
}

}  // namespace
}  // namespace qatx
