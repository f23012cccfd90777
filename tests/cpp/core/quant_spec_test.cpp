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
}

TEST(QuantSpecTest, Repr) {
  EXPECT_EQ(QuantSpec().repr(), "QuantSpec(bits=8, signed=True, symmetric=True, axis=None)");
  EXPECT_EQ(QuantSpec(4, false, false, -1).repr(),
            "QuantSpec(bits=4, signed=False, symmetric=False, axis=-1)");
}

}  // namespace
}  // namespace qatx
