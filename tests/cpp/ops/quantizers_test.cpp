// The operators as C++ functions, each on values that can be checked by hand. Their numerics are
// tested from Python, against exact arithmetic.

#include <ATen/ops/full.h>
#include <ATen/ops/ones_like.h>

#include <limits>

#include "../tensor_testing.h"
#include "qatx/core/qparams.h"
#include "qatx/ops/dorefa.h"
#include "qatx/ops/fake_quantize.h"
#include "qatx/ops/learned_zero_point.h"
#include "qatx/ops/moving_average.h"
#include "qatx/ops/pack_codes.h"
#include "qatx/ops/pact.h"
#include "qatx/ops/quantize.h"
#include "qatx/ops/scales.h"

namespace qatx {
namespace {

using testing::floats;
using testing::same_bits;
using testing::scalar;

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

std::vector<int64_t> values(const at::Tensor& codes) {
  const at::Tensor wide = codes.to(at::kLong).contiguous();
  return {wide.const_data_ptr<int64_t>(), wide.const_data_ptr<int64_t>() + wide.numel()};
}

TEST(PactTest, ClipsAndLearnsWhere) {
  const at::Tensor x = floats({-1, 0, 1, 1.9f, 2, 5}).requires_grad_(true);
  const at::Tensor alpha = floats({2}).requires_grad_(true);
  const at::Tensor y = pact(x, alpha, 4);
  EXPECT_TRUE(same_bits(y.detach(), floats({0, 0, 1, 2, 2, 2})));
  y.backward(floats({1, 2, 4, 8, 16, 32}));
  EXPECT_TRUE(same_bits(x.grad(), floats({0, 2, 4, 8, 0, 0})));
  EXPECT_TRUE(same_bits(alpha.grad(), floats({48})));
  const auto [dx, dalpha] = pact_backward(floats({3}), floats({9}), floats({2}));
  EXPECT_TRUE(same_bits(dx, floats({0})));
  EXPECT_TRUE(same_bits(dalpha, floats({3})));
  EXPECT_ERROR(c10::ValueError, "alpha[0] must be positive and finite", pact(x, floats({0}), 4));
}

TEST(MovingAverageTest, MovesTheRangeAndChangesNothingInPlace) {
  const at::Tensor low = floats({kInf});
  const at::Tensor high = floats({-kInf});
  const auto [y, first_low, first_high, scale, zero_point] =
      moving_average_fake_quantize(floats({0, 15, kNan}), low, high, 0.5, 0, 15, false);
  EXPECT_TRUE(same_bits(y, floats({0, 15, kNan})));
  EXPECT_TRUE(same_bits(low, floats({kInf})));
  EXPECT_TRUE(same_bits(scale, floats({1})));
  EXPECT_TRUE(same_bits(zero_point, floats({0})));
  const auto second =
      moving_average_fake_quantize(floats({0, 45}), first_low, first_high, 0.5, 0, 15, false);
  EXPECT_TRUE(same_bits(std::get<2>(second), floats({30})));
  EXPECT_TRUE(same_bits(std::get<3>(second), floats({2})));
}

TEST(DoReFaTest, HasNoZeroAndKeepsTheSign) {
  const at::Tensor y = dorefa_weight(floats({-3, -0.01f, 0.01f, 3}), 2);
  // Two bits: -1, -1/3, 1/3, 1, each with the rounding errors of its operations.
  EXPECT_TRUE(y.sub(floats({-1, -1.0f / 3, 1.0f / 3, 1})).abs().max().item<float>() < 1e-6f);
  EXPECT_ERROR(c10::ValueError, "bits must be from 2 to 8, got 9", dorefa_weight(floats({1}), 9));
}

TEST(QuantizeTest, CodesAndBack) {
  const at::Tensor x = floats({-9, -0.3f, 0.2f, 1.0f, 9, kNan});
  const at::Tensor codes = quantize(x, floats({0.5f}), floats({1}), -8, 7);
  EXPECT_EQ(codes.scalar_type(), at::kChar);
  EXPECT_EQ(values(codes), (std::vector<int64_t>{-8, 0, 1, 3, 7, 1}));
  const at::Tensor y = dequantize(codes, floats({0.5f}), floats({1}));
  EXPECT_TRUE(same_bits(y, floats({-4.5f, -0.5f, 0, 1, 3, 0})));
  EXPECT_TRUE(same_bits(quantize_dequantize(x, floats({0.5f}), floats({1}), -8, 7), y));
  const at::Tensor unsigned_codes = quantize(x, floats({0.5f}), floats({200}), 0, 255);
  EXPECT_EQ(unsigned_codes.scalar_type(), at::kByte);
  EXPECT_EQ(values(unsigned_codes), (std::vector<int64_t>{182, 199, 200, 202, 218, 200}));
  const at::Tensor half =
      dequantize(codes, floats({0.5f}), floats({1}), std::nullopt, std::nullopt, at::kHalf);
  EXPECT_EQ(half.scalar_type(), at::kHalf);
}

TEST(PackCodesTest, LowBitsFirst) {
  const at::Tensor codes = floats({-8, 7, -1}).to(at::kChar);
  const at::Tensor packed = pack_codes(codes, 4);
  EXPECT_EQ(values(packed), (std::vector<int64_t>{0x78, 0x0f}));
  EXPECT_EQ(values(unpack_codes(packed, 4, 3, true)), (std::vector<int64_t>{-8, 7, -1}));
  EXPECT_EQ(values(unpack_codes(packed, 4, 3, false)), (std::vector<int64_t>{8, 7, 15}));
  EXPECT_EQ(values(unpack_codes(packed, 2, 7, true)),
            (std::vector<int64_t>{0, -2, -1, 1, -1, -1, 0}));
  EXPECT_ERROR(c10::ValueError, "size must be one whose codes fill 2 bytes, got 5",
               unpack_codes(packed, 4, 5, true));
}

TEST(LearnedZeroPointTest, IsAlwaysANumber) {
  const at::Tensor raw = floats({1.5f, kNan, kInf, -3}).requires_grad_(true);
  const at::Tensor zero_point = learned_zero_point(raw);
  EXPECT_TRUE(same_bits(zero_point.detach(), floats({1.5f, 0, kInf, -3})));
  zero_point.backward(floats({2, 3, kNan, -kInf}));
  EXPECT_TRUE(same_bits(raw.grad(), floats({2, 3, 0, 0})));
  EXPECT_ERROR(c10::TypeError, "raw must be float32", learned_zero_point(raw.to(at::kInt)));
}

// Groups of 2 along the last dimension, of which the last is shorter, are channels of their own.
TEST(FakeQuantizeGroupsTest, EqualThePartsOneByOne) {
  const at::Tensor x = floats({0.3f, -2, 0.7f, 4, 1.6f}).unsqueeze(0);
  const at::Tensor scale = floats({0.5f, 0.25f, 1}).unsqueeze(0);
  const at::Tensor zero_point = floats({0, 1, -2}).unsqueeze(0);
  const at::Tensor y = fake_quantize(x, scale, zero_point, -8, 7, 1, 1.0, 2);
  const auto [dx, dscale, dzero_point] =
      fake_quantize_backward(at::ones_like(x), x, scale, zero_point, -8, 7, 1, 1.0, 2);
  for (int64_t group = 0; group < 3; ++group) {
    const at::Tensor part = x.slice(1, 2 * group, 2 * group + 2);
    const at::Tensor s = scale[0].narrow(0, group, 1);
    const at::Tensor z = zero_point[0].narrow(0, group, 1);
    EXPECT_TRUE(same_bits(y.slice(1, 2 * group, 2 * group + 2), fake_quantize(part, s, z, -8, 7)));
    const auto [part_dx, part_dscale, part_dzero_point] =
        fake_quantize_backward(at::ones_like(part), part, s, z, -8, 7);
    EXPECT_TRUE(same_bits(dx.slice(1, 2 * group, 2 * group + 2), part_dx));
    EXPECT_TRUE(same_bits(dscale[0].narrow(0, group, 1), part_dscale));
    EXPECT_TRUE(same_bits(dzero_point[0].narrow(0, group, 1), part_dzero_point));
  }
}

TEST(FakeQuantizeSeedTest, SameSeedSameBits) {
  const at::Tensor x = at::full({1000}, 0.5f, at::kFloat);
  const auto with_seed = [&](int64_t seed) {
    return fake_quantize(x, floats({1}), floats({0}), -8, 7, std::nullopt, 1.0, std::nullopt, false,
                         at::full({}, seed, at::kLong));
  };
  EXPECT_TRUE(same_bits(with_seed(1), with_seed(1)));
  EXPECT_FALSE(same_bits(with_seed(1), with_seed(2)));
  EXPECT_NEAR(with_seed(1).mean().item<float>(), 0.5, 5 * 0.5 / 31.6);  // 5 sigma
}

}  // namespace
}  // namespace qatx
