#include "qatx/core/quant_spec.h"

#include "../testing.h"

namespace qatx {
namespace {

TEST(QuantSpecTest, CodesOfEveryWidth) {
  const std::vector<std::pair<int64_t, int64_t>> with_sign = {
      {-2, 1}, {-4, 3}, {-8, 7}, {-16, 15}, {-32, 31}, {-64, 63}, {-128, 127}};
  const std::vector<int64_t> unsigned_max = {3, 7, 15, 31, 63, 127, 255};
  for (int64_t bits = 2; bits <= 8; ++bits) {
    const auto i = static_cast<size_t>(bits - 2);
    const QuantSpec s(bits, /*with_sign=*/true);
    EXPECT_EQ(std::pair(s.quant_min(), s.quant_max()), with_sign[i]) << bits;
    const QuantSpec u(bits, /*with_sign=*/false);
    EXPECT_EQ(u.quant_min(), 0) << bits;
    EXPECT_EQ(u.quant_max(), unsigned_max[i]) << bits;
  }
}

TEST(QuantSpecTest, BitsOutOfRange) {
  for (const int64_t bits : {-1, 0, 1, 9, 64}) {
    EXPECT_ERROR(c10::ValueError, "bits must be from 2 to 8, got " + std::to_string(bits),
                 QuantSpec(bits));
  }
}

TEST(QuantSpecTest, NarrowRangeLeavesTheLowestCodeOut) {
  const QuantSpec ternary(2, true, true, std::nullopt, true);
  EXPECT_EQ(std::pair(ternary.quant_min(), ternary.quant_max()), std::pair(-1L, 1L));
  EXPECT_EQ(QuantSpec(8, false, false, std::nullopt, true).quant_min(), 1);
}

TEST(QuantSpecTest, GroupsNeedAnAxisAndASize) {
  EXPECT_ERROR(c10::ValueError, "group_size needs an axis, got axis=None",
               QuantSpec(4, true, true, std::nullopt, false, 32));
  EXPECT_ERROR(c10::ValueError, "group_size must be at least 1, got 0",
               QuantSpec(4, true, true, 1, false, 0));
}

TEST(QuantSpecTest, ShapeOfScales) {
  EXPECT_EQ(QuantSpec().scale_shape({2, 3}), (std::vector<int64_t>{}));
  EXPECT_EQ(QuantSpec(8, true, true, -1).scale_shape({2, 3}), (std::vector<int64_t>{3}));
  EXPECT_EQ(QuantSpec(4, true, true, 1, false, 32).scale_shape({5, 70, 3}),
            (std::vector<int64_t>{5, 3, 3}));
  EXPECT_ERROR(c10::ValueError, "axis must be one of the 1 dimensions of the tensor, got 1",
               QuantSpec(8, true, true, 1).scale_shape({2}));
}

TEST(QuantSpecTest, Defaults) {
  const QuantSpec spec;
  EXPECT_EQ(spec.bits(), 8);
  EXPECT_TRUE(spec.is_signed());
  EXPECT_TRUE(spec.symmetric());
  EXPECT_EQ(spec.axis(), std::nullopt);
}

TEST(QuantSpecTest, EqualityLooksAtEveryField) {
  const QuantSpec spec(4, false, false, 1);
  EXPECT_EQ(spec, QuantSpec(4, false, false, 1));
  EXPECT_NE(spec, QuantSpec(5, false, false, 1));
  EXPECT_NE(spec, QuantSpec(4, true, false, 1));
  EXPECT_NE(spec, QuantSpec(4, false, true, 1));
  EXPECT_NE(spec, QuantSpec(4, false, false, 0));
  EXPECT_NE(spec, QuantSpec(4, false, false));
  EXPECT_NE(spec, QuantSpec(4, false, false, 1, true));
  EXPECT_NE(spec, QuantSpec(4, false, false, 1, false, 2));
}

TEST(QuantSpecTest, Repr) {
  EXPECT_EQ(QuantSpec().repr(), "QuantSpec(bits=8, signed=True, symmetric=True, axis=None)");
  EXPECT_EQ(QuantSpec(4, false, false, -1).repr(),
            "QuantSpec(bits=4, signed=False, symmetric=False, axis=-1)");
  EXPECT_EQ(QuantSpec(2, true, true, 1, true, 64).repr(),
            "QuantSpec(bits=2, signed=True, symmetric=True, axis=1, narrow_range=True, "
            "group_size=64)");
}

}  // namespace
}  // namespace qatx
