#include "qatx/kernels/elementwise.h"

#include <limits>

#include "kernel_test.h"

namespace qatx::kernels {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

// The operand that is one code for all elements of a row.
enum class Kind { sum, product, quotient };
enum class Repeated { none, a, b };

class ElementwiseTest : public KernelTest {
 protected:
  const ElementwiseKernels& kernel() const { return row().elementwise; }

  QParams random_qparams() {
    const auto quant_min = static_cast<int32_t>(chance(0.5) ? 0 : integer(0, 250));
    const auto quant_max = static_cast<int32_t>(chance(0.5) ? 255 : integer(quant_min + 1, 255));
    const float scales[] = {0.05f, 1.0f / 3.0f, 0x1p-126f, 0x1p126f, real(0.001f, 1.0f)};
    const float scale = scales[integer(0, 4)];
    return {scale, 1.0f / scale, static_cast<int32_t>(integer(quant_min, quant_max)), quant_min,
            quant_max};
  }

  float random_value(const QParams& p) {
    constexpr float special[] = {kNan, -kNan, kInf, -kInf, 0.0f, -0.0f, 3e38f, -3e38f, 1e-45f};
    if (chance(0.1)) return special[integer(0, 8)];
    const auto code = static_cast<float>(integer(-5, 260) - p.zero_point);
    return (code + (chance(0.5) ? 0.5f : real(-0.5f, 0.5f))) * p.scale;
  }

  static float expected_value(uint8_t code, const QParams& p) {
    return static_cast<float>(int32_t{code} - p.zero_point) * p.scale;
  }

  void check_transposed(int64_t channels, int64_t pixels) {
    SCOPED_TRACE(::testing::Message() << channels << " channels, " << pixels << " pixels");
    const QParams p = random_qparams();
    const int64_t size = channels * pixels;
    Buffer<float> x(size, 4 * integer(0, 15));
    Buffer<uint8_t> q(size, integer(0, 63));
    for (float& value : x) value = random_value(p);
    kernel().quantize_to_nhwc(x.data(), q.data(), channels, pixels, p);
    for (int64_t c = 0; c < channels; ++c) {
      for (int64_t i = 0; i < pixels; ++i) {
        ASSERT_TRUE(same(q[i * channels + c], expected_code(x[c * pixels + i], p)))
            << "channel " << c << ", pixel " << i;
      }
    }
    ASSERT_TRUE(q.zones_intact());

    Buffer<float> back(size, 4 * integer(0, 15));
    for (uint8_t& code : q) code = static_cast<uint8_t>(integer(0, 255));
    kernel().dequantize_to_nchw(q.data(), back.data(), channels, pixels, p);
    for (int64_t c = 0; c < channels; ++c) {
      for (int64_t i = 0; i < pixels; ++i) {
        ASSERT_TRUE(same(back[c * pixels + i], expected_value(q[i * channels + c], p)))
            << "channel " << c << ", pixel " << i;
      }
    }
    ASSERT_TRUE(back.zones_intact());
  }

  QParams middling_qparams() {
    const float scale = real(0.005f, 0.05f);
    return {scale, 1.0f / scale, static_cast<int32_t>(integer(5, 200)), 5, 200};
  }

  // A sum or product; rows of either operand lie apart, or one row serves all.
  void check_combined(int64_t rows, int64_t n, Repeated repeated, Kind kind) {
    SCOPED_TRACE(::testing::Message() << rows << " rows of " << n << ", kind " << int(kind));
    const QParams qa = middling_qparams();
    const QParams qb = middling_qparams();
    const int64_t gap = integer(0, 5);
    const auto row_stride = [&] { return chance(0.3) ? 0 : n + gap; };
    const int64_t stride_a = row_stride();
    const int64_t stride_b = row_stride();
    Buffer<uint8_t> a(rows * (n + gap) + n, integer(0, 63));
    Buffer<uint8_t> b(rows * (n + gap) + n, integer(0, 63));
    for (uint8_t& code : a) code = static_cast<uint8_t>(integer(0, 255));
    for (uint8_t& code : b) code = static_cast<uint8_t>(integer(0, 255));
    Buffer<uint8_t> codes(rows * (n + gap), integer(0, 63));
    Buffer<float> floats(rows * (n + gap), 4 * integer(0, 15));
    const Operand operand_a{a.data(), qa, stride_a, repeated == Repeated::a};
    const Operand operand_b{b.data(), qb, stride_b, repeated == Repeated::b};
    const auto kernel_function = kind == Kind::sum       ? kernel().add
                                 : kind == Kind::product ? kernel().mul
                                                         : kernel().div;
    Epilogue epilogue{};
    epilogue.clamp_min = chance(0.5) ? 0.0f : -kInf;
    epilogue.clamp_max = chance(0.5) ? 2.0f : kInf;
    epilogue.out_stride = n + gap;
    epilogue.out_u8 = codes.data();
    epilogue.out = middling_qparams();
    kernel_function(operand_a, operand_b, rows, n, epilogue);
    epilogue.out_u8 = nullptr;
    epilogue.out_f32 = floats.data();
    kernel_function(operand_a, operand_b, rows, n, epilogue);
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t i = 0; i < n + gap; ++i) {
        const int64_t at = r * (n + gap) + i;
        if (i >= n) {
          ASSERT_TRUE(codes.untouched(at) && floats.untouched(at));
          continue;
        }
        const uint8_t code_a = a[r * stride_a + (operand_a.constant ? 0 : i)];
        const uint8_t code_b = b[r * stride_b + (operand_b.constant ? 0 : i)];
        const float value_a = expected_value(code_a, qa);
        const float value_b = expected_value(code_b, qb);
        const float combined = kind == Kind::sum       ? value_a + value_b
                               : kind == Kind::product ? value_a * value_b
                                                       : value_a / value_b;
        const float y = expected_clamp(combined, epilogue.clamp_min, epilogue.clamp_max);
        ASSERT_TRUE(same(floats[at], y)) << "row " << r << ", element " << i;
        ASSERT_TRUE(same(codes[at], expected_code(y, epilogue.out)))
            << "row " << r << ", element " << i;
      }
    }
    ASSERT_TRUE(codes.zones_intact() && floats.zones_intact());
  }
};

TEST_P(ElementwiseTest, Quantize) {
  for (int64_t n = 0; n <= 200; ++n) {
    const QParams p = random_qparams();
    Buffer<float> x(n, 4 * integer(0, 15));
    Buffer<uint8_t> q(n, integer(0, 63));
    for (float& value : x) value = random_value(p);
    kernel().quantize(x.data(), q.data(), n, p);
    for (int64_t i = 0; i < n; ++i) {
      ASSERT_TRUE(same(q[i], expected_code(x[i], p))) << "x = " << x[i] << ", n = " << n;
    }
    EXPECT_TRUE(q.zones_intact()) << n;
  }
}

TEST_P(ElementwiseTest, QuantizeSpecialValues) {
  const QParams p{0.5f, 2.0f, 100, 10, 200};
  const std::vector<std::pair<float, int>> cases = {
      {kNan, 100},  {-kNan, 100}, {kInf, 200},   {-kInf, 10},  {3e38f, 200}, {-3e38f, 10},
      {0.25f, 100}, {0.75f, 102}, {-0.25f, 100}, {-0.75f, 98}, {-0.0f, 100}, {1e-45f, 100}};
  for (const auto& [x, code] : cases) {
    // In a full vector and in a tail.
    for (const size_t n : {size_t{1}, size_t{64}}) {
      const std::vector<float> values(n, x);
      std::vector<uint8_t> q(n);
      kernel().quantize(values.data(), q.data(), static_cast<int64_t>(n), p);
      for (const uint8_t value : q) EXPECT_EQ(int{value}, code) << "x = " << x;
    }
  }
}

TEST_P(ElementwiseTest, Dequantize) {
  for (int64_t n = 0; n <= 300; ++n) {
    const QParams p = random_qparams();
    Buffer<uint8_t> q(n, integer(0, 63));
    Buffer<float> x(n, 4 * integer(0, 15));
    for (int64_t i = 0; i < n; ++i) q[i] = static_cast<uint8_t>(i + n);
    kernel().dequantize(q.data(), x.data(), n, p);
    for (int64_t i = 0; i < n; ++i) ASSERT_TRUE(same(x[i], expected_value(q[i], p))) << n;
    EXPECT_TRUE(x.zones_intact()) << n;
  }
}

// All codes that a zero point leaves within 8 signed bits.
TEST_P(ElementwiseTest, Center) {
  for (int64_t n = 0; n <= 300; ++n) {
    const int zero_point = integer(0, 255);
    Buffer<uint8_t> q(n, integer(0, 63));
    Buffer<int8_t> steps(n, integer(0, 63));
    for (uint8_t& code : q) {
      code = static_cast<uint8_t>(
          integer(std::max(0, zero_point - 128), std::min(255, zero_point + 127)));
    }
    const int32_t sum =
        kernel().center(q.data(), steps.data(), n, static_cast<uint8_t>(zero_point));
    int64_t expected = 0;
    for (int64_t i = 0; i < n; ++i) {
      expected += q[i] - zero_point;
      ASSERT_EQ(int{steps[i]}, q[i] - zero_point) << "element " << i << " of " << n;
    }
    EXPECT_EQ(sum, expected) << n;
    EXPECT_TRUE(steps.zones_intact()) << n;
  }
}

TEST_P(ElementwiseTest, Transposed) {
  for (int64_t channels = 1; channels <= 70; ++channels) {
    for (const int64_t pixels : {1, 2, 7, 15, 16, 17, 49, 63, 64, 65, 130}) {
      check_transposed(channels, pixels);
      if (HasFatalFailure()) return;
    }
  }
  check_transposed(3, 1000);
  check_transposed(129, 196);
}

TEST_P(ElementwiseTest, AddMulAndDiv) {
  for (int64_t n = 1; n <= 150; ++n) {
    for (const Repeated repeated : {Repeated::none, Repeated::a, Repeated::b}) {
      for (const Kind kind : {Kind::sum, Kind::product, Kind::quotient}) {
        check_combined(integer(0, 4), n, repeated, kind);
        if (HasFatalFailure()) return;
      }
    }
  }
}

TEST_P(ElementwiseTest, LookUp) {
  for (int64_t n = 0; n <= 400; ++n) {
    uint8_t table[256];
    float floats[256];
    for (int i = 0; i < 256; ++i) {
      table[i] = static_cast<uint8_t>(integer(0, 255));
      floats[i] = chance(0.1) ? kNan : real(-2.0f, 2.0f);
    }
    Buffer<uint8_t> q(n, integer(0, 63));
    Buffer<uint8_t> codes(n, integer(0, 63));
    Buffer<float> values(n, 4 * integer(0, 15));
    // The first 256 meet every entry.
    for (int64_t i = 0; i < n; ++i) q[i] = static_cast<uint8_t>(i < 256 ? i : integer(0, 255));
    kernel().lookup(q.data(), codes.data(), n, table);
    kernel().lookup_f32(q.data(), values.data(), n, floats);
    for (int64_t i = 0; i < n; ++i) {
      ASSERT_TRUE(same(codes[i], table[q[i]])) << "element " << i << " of " << n;
      ASSERT_TRUE(same(values[i], floats[q[i]])) << "element " << i << " of " << n;
    }
    EXPECT_TRUE(codes.zones_intact() && values.zones_intact()) << n;
  }
}

// Indices of 4 and 2 bits, the first in the lowest bits of a byte.
TEST_P(ElementwiseTest, LookUpSmallIndices) {
  for (int64_t n = 0; n <= 300; ++n) {
    for (const int64_t bits : {4, 2}) {
      const int64_t entries = int64_t{1} << bits;
      Buffer<uint8_t> table(entries);
      for (uint8_t& entry : table) entry = static_cast<uint8_t>(integer(0, 255));
      const int64_t per_byte = 8 / bits;
      Buffer<uint8_t> q((n + per_byte - 1) / per_byte, integer(0, 63));
      for (uint8_t& byte : q) byte = static_cast<uint8_t>(integer(0, 255));
      Buffer<uint8_t> out(n, integer(0, 63));
      (bits == 4 ? kernel().lookup_4 : kernel().lookup_2)(q.data(), out.data(), n, table.data());
      for (int64_t i = 0; i < n; ++i) {
        const int64_t index = (q[i / per_byte] >> (i % per_byte * bits)) % entries;
        ASSERT_TRUE(same(out[i], table[index])) << bits << " bits, element " << i << " of " << n;
      }
      EXPECT_TRUE(out.zones_intact()) << n;
    }
  }
}

TEST_P(ElementwiseTest, Copy) {
  for (int round = 0; round < 400; ++round) {
    const int64_t rows = integer(1, 40);
    const int64_t n = integer(1, 80);
    const int64_t gap = integer(0, 3);
    // Rows or columns side by side, or neither.
    const int64_t kind = integer(0, 2);
    const int64_t in_step = kind == 0 ? 1 : kind == 1 ? rows + gap : integer(0, 5);
    const int64_t in_row = kind == 0 ? n + gap : kind == 1 ? 1 : integer(0, 90);
    Buffer<uint8_t> in(in_row * (rows - 1) + in_step * (n - 1) + 1, integer(0, 63));
    for (uint8_t& code : in) code = static_cast<uint8_t>(integer(0, 255));
    Buffer<uint8_t> out(rows * (n + gap), integer(0, 63));
    kernel().copy(in.data(), in_row, in_step, out.data(), n + gap, rows, n);
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t i = 0; i < n + gap; ++i) {
        const int64_t at = r * (n + gap) + i;
        if (i >= n) {
          ASSERT_TRUE(out.untouched(at));
        } else {
          ASSERT_TRUE(same(out[at], in[r * in_row + i * in_step])) << rows << " rows of " << n;
        }
      }
    }
    ASSERT_TRUE(out.zones_intact());
  }
}

QATX_FOR_ALL_ROWS(ElementwiseTest);

}  // namespace
}  // namespace qatx::kernels
