#include "qatx/core/qparams.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>

#include <cmath>
#include <limits>

#include "../tensor_testing.h"
#include "qatx/core/rounding.h"

namespace qatx {
namespace {

using testing::floats;
using testing::Random;
using testing::same_bits;
using testing::scalar;

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kMax = std::numeric_limits<float>::max();
constexpr float kDenormal = std::numeric_limits<float>::denorm_min();

std::pair<float, float> choose(float min, float max, const QuantSpec& spec) {
  const auto [scale, zero_point] = choose_qparams(scalar(min), scalar(max), spec);
  return {scale.item<float>(), zero_point.item<float>()};
}

std::vector<QuantSpec> all_specs() {
  std::vector<QuantSpec> specs;
  for (int64_t bits = 2; bits <= 8; ++bits) {
    for (const bool with_sign : {false, true}) {
      for (const bool symmetric : {false, true}) specs.emplace_back(bits, with_sign, symmetric);
    }
  }
  return specs;
}

TEST(ChooseQParamsTest, WorkedExamples) {
  using Pair = std::pair<float, float>;
  // Symmetric: the larger side over the codes above the middle.
  EXPECT_EQ(choose(-2.0f, 1.0f, QuantSpec(8, true, true)), Pair(2.0f / 127.0f, 0.0f));
  EXPECT_EQ(choose(-1.0f, 254.0f, QuantSpec(8, true, true)), Pair(2.0f, 0.0f));
  EXPECT_EQ(choose(-3.5f, 7.0f, QuantSpec(4, true, true)), Pair(1.0f, 0.0f));
  EXPECT_EQ(choose(-3.5f, 7.0f, QuantSpec(4, false, true)), Pair(1.0f, 8.0f));
  EXPECT_EQ(choose(-1.0f, 0.5f, QuantSpec(2, true, true)), Pair(1.0f, 0.0f));
  // Asymmetric: all codes over the whole range.
  EXPECT_EQ(choose(-1.0f, 14.0f, QuantSpec(4, false, false)), Pair(1.0f, 1.0f));
  EXPECT_EQ(choose(-1.0f, 14.0f, QuantSpec(4, true, false)), Pair(1.0f, -7.0f));
  EXPECT_EQ(choose(-127.5f, 127.5f, QuantSpec(8, false, false)), Pair(1.0f, 128.0f));  // tie: even
  EXPECT_EQ(choose(-126.5f, 128.5f, QuantSpec(8, false, false)), Pair(1.0f, 126.0f));  // tie: even
}

TEST(ChooseQParamsTest, RangesAreWidenedToHoldZero) {
  for (const QuantSpec& spec : all_specs()) {
    EXPECT_EQ(choose(2.0f, 3.0f, spec), choose(0.0f, 3.0f, spec)) << spec.repr();
    EXPECT_EQ(choose(-3.0f, -2.0f, spec), choose(-3.0f, 0.0f, spec)) << spec.repr();
    // A constant is a range from or to 0.
    EXPECT_EQ(choose(5.0f, 5.0f, spec), choose(0.0f, 5.0f, spec)) << spec.repr();
    EXPECT_EQ(choose(-5.0f, -5.0f, spec), choose(-5.0f, 0.0f, spec)) << spec.repr();
  }
}

TEST(ChooseQParamsTest, OneSidedRangesUseAllCodes) {
  for (const QuantSpec& spec : all_specs()) {
    if (spec.symmetric()) continue;
    const auto codes = static_cast<float>(spec.quant_max() - spec.quant_min());
    EXPECT_EQ(choose(0.0f, codes, spec), std::pair(1.0f, static_cast<float>(spec.quant_min())));
    EXPECT_EQ(choose(-codes, 0.0f, spec), std::pair(1.0f, static_cast<float>(spec.quant_max())));
  }
}

TEST(ChooseQParamsTest, AllZeroRangeHasScaleOne) {
  for (const QuantSpec& spec : all_specs()) {
    for (const float zero : {0.0f, -0.0f}) {
      const auto [scale, zero_point] = choose(zero, 0.0f, spec);
      EXPECT_EQ(scale, 1.0f) << spec.repr();
      EXPECT_GE(zero_point, spec.quant_min()) << spec.repr();
      EXPECT_LE(zero_point, spec.quant_max()) << spec.repr();
    }
  }
}

// For any range: a valid scale, an integer zero point among the codes (so 0.0 is exactly
// representable), both ends of the range within a step of what the codes reach, and an oracle in
// double.
TEST(ChooseQParamsTest, AnyRange) {
  Random random(1);
  std::vector<std::pair<float, float>> ranges = {
      {-kDenormal, kDenormal}, {0.0f, kDenormal},  {-kDenormal, 0.0f}, {1e-40f, 1e-39f},
      {-kMax, kMax},           {0.0f, kMax},       {-kMax, 0.0f},      {-kMax, kDenormal},
      {-1e-38f, 1e-38f},       {-0x1p-126f, 1.0f}, {-1.0f, 0x1p-126f}};
  for (int i = 0; i < 200; ++i) {
    const float center = random.real(-1.0f, 1.0f);
    const float half = random.real(0.0f, 2.0f);
    const auto factor =
        static_cast<float>(std::ldexp(1.0, static_cast<int>(random.integer(-90, 90))));
    ranges.emplace_back((center - half) * factor, (center + half) * factor);
  }
  for (const QuantSpec& spec : all_specs()) {
    for (const auto& [min, max] : ranges) {
      SCOPED_TRACE(::testing::Message() << spec.repr() << " [" << min << ", " << max << "]");
      const auto [scale, zero_point] = choose(min, max, spec);
      ASSERT_TRUE(is_valid_scale(scale)) << scale;
      ASSERT_EQ(zero_point, std::nearbyint(zero_point));
      ASSERT_GE(zero_point, spec.quant_min());
      ASSERT_LE(zero_point, spec.quant_max());

      const double low = std::min(0.0, double{min});
      const double high = std::max(0.0, double{max});
      const auto quant_min = static_cast<double>(spec.quant_min());
      const auto quant_max = static_cast<double>(spec.quant_max());
      double exact = (high - low) / (quant_max - quant_min);
      if (spec.symmetric()) {
        const double middle =
            spec.is_signed() ? 0.0 : std::ldexp(1.0, static_cast<int>(spec.bits() - 1));
        exact = std::max(-low, high) / (quant_max - middle);
        ASSERT_EQ(zero_point, middle);
      }
      exact = std::min(std::max(exact, 0x1p-126), 0x1p126);
      ASSERT_EQ(scale, static_cast<float>(exact));
      if (!spec.symmetric() && exact < 0x1p126) {
        EXPECT_GE(low, (quant_min - zero_point - 0.5001) * scale);
        EXPECT_LE(high, (quant_max - zero_point + 0.5001) * scale);
      }
    }
  }
}

TEST(ChooseQParamsTest, ChannelsAreIndependent) {
  Random random(2);
  const at::Tensor min = random_floats(random, {7}, -3.0f, 1.0f);
  const at::Tensor max = min + random_floats(random, {7}, 0.0f, 3.0f);
  // Every second element of a larger tensor: not dense.
  const at::Tensor strided_min = at::empty({7, 2}, at::kFloat).select(1, 0).copy_(min);
  const at::Tensor strided_max = at::empty({7, 2}, at::kFloat).select(1, 1).copy_(max);
  for (const QuantSpec& spec : all_specs()) {
    const auto [scale, zero_point] = choose_qparams(min, max, spec);
    ASSERT_EQ(scale.sizes(), min.sizes());
    ASSERT_EQ(zero_point.sizes(), min.sizes());
    for (int64_t c = 0; c < 7; ++c) {
      EXPECT_EQ(std::pair(scale[c].item<float>(), zero_point[c].item<float>()),
                choose(min[c].item<float>(), max[c].item<float>(), spec));
    }
    const auto [strided_scale, strided_zero_point] = choose_qparams(strided_min, strided_max, spec);
    EXPECT_TRUE(same_bits(strided_scale, scale));
    EXPECT_TRUE(same_bits(strided_zero_point, zero_point));
  }
}

TEST(ChooseQParamsTest, Errors) {
  const QuantSpec spec;
  const auto bad_range = [&](float min, float max) {
    EXPECT_ERROR(c10::ValueError, "range 1 must be finite with min <= max",
                 choose_qparams(floats({-1.0f, min}), floats({1.0f, max}), spec));
  };
  bad_range(kNan, 1.0f);
  bad_range(0.0f, kNan);
  bad_range(-kInf, 1.0f);
  bad_range(0.0f, kInf);
  bad_range(1.0f, 0.5f);
  EXPECT_ERROR(c10::ValueError,
               "min and max must have one shape and dtype, got [1] Float and [2] Float",
               choose_qparams(floats({0.0f}), floats({1.0f, 2.0f}), spec));
  EXPECT_ERROR(c10::ValueError, "must have one shape and dtype, got [] Double and [] Float",
               choose_qparams(scalar(0.0f).to(at::kDouble), scalar(1.0f), spec));
  EXPECT_ERROR(c10::TypeError, "min must be a float32 or float64 tensor, got Half",
               choose_qparams(scalar(0.0f).to(at::kHalf), scalar(1.0f), spec));
  EXPECT_ERROR(c10::TypeError, "max must be a float32 or float64 tensor, got none",
               choose_qparams(scalar(0.0f), at::Tensor(), spec));
  EXPECT_ERROR(c10::ValueError, "max must be on the CPU, got meta",
               choose_qparams(scalar(0.0f), scalar(1.0f).to(at::kMeta), spec));
}

TEST(ReadQParamsTest, InvalidScales) {
  for (const float bad :
       {0.0f, -0.0f, -1.0f, kNan, kInf, -kInf, kDenormal, 0x1.fffffcp-127f, 0x1.000002p126f}) {
    EXPECT_ERROR(c10::ValueError, "scale[1] must be positive, finite",
                 read_qparams(floats({1.0f, bad}), floats({0.0f, 0.0f}), 0, 255));
  }
}

TEST(ReadQParamsTest, ExtremeScalesAndTheirReciprocals) {
  const std::vector<float> scales = {0x1p-126f, 0x1p126f, 0.1f, 3.0f};
  const CheckedQParams qparams = read_qparams(floats(scales), floats({0, 0, 0, 0}), -128, 127);
  EXPECT_EQ(qparams.scale, scales);
  EXPECT_EQ(qparams.inv_scale, (std::vector<float>{0x1p126f, 0x1p-126f, 1.0f / 0.1f, 1.0f / 3.0f}));
}

TEST(ReadQParamsTest, ZeroPointsAreRoundedToEvenAndClamped) {
  const std::vector<std::pair<float, float>> cases = {
      {0.5f, 0.0f},    {1.5f, 2.0f},  {2.5f, 2.0f},   {-0.5f, 0.0f},  {-1.5f, -2.0f},
      {-2.5f, -2.0f},  {1.49f, 1.0f}, {6.5f, 6.0f},   {6.51f, 7.0f},  {7.5f, 7.0f},
      {1e30f, 7.0f},   {kInf, 7.0f},  {-7.5f, -8.0f}, {-8.5f, -8.0f}, {-kInf, -8.0f},
      {-1e30f, -8.0f}, {-0.0f, 0.0f}};
  for (const auto& [zero_point, expected] : cases) {
    const CheckedQParams qparams = read_qparams(scalar(1.0f), scalar(zero_point), -8, 7);
    EXPECT_EQ(qparams.zero_point.at(0), expected) << zero_point;
  }
  EXPECT_ERROR(c10::ValueError, "zero_point[2] must be a number, got NaN",
               read_qparams(floats({1, 1, 1}), floats({0, 0, kNan}), 0, 255));
}

TEST(ReadQParamsTest, StridedTensors) {
  const at::Tensor both = floats({0.5f, 3.0f, 2.0f, 4.0f}).view({2, 2});
  const CheckedQParams qparams = read_qparams(both.select(1, 0), both.select(1, 1), 0, 255);
  EXPECT_EQ(qparams.scale, (std::vector<float>{0.5f, 2.0f}));
  EXPECT_EQ(qparams.zero_point, (std::vector<float>{3.0f, 4.0f}));
}

}  // namespace
}  // namespace qatx
