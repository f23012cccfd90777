#include "qatx/kernels/elementwise.h"

#include <limits>

#include "kernel_test.h"

namespace qatx::kernels {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

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

TEST_P(ElementwiseTest, Add) {
  for (int64_t n = 0; n <= 200; ++n) {
    const auto random_scale = [&] {
      const float scale = real(0.005f, 0.05f);
      return std::pair{scale, 1.0f / scale};
    };
    const auto [scale_a, inv_a] = random_scale();
    const auto [scale_b, inv_b] = random_scale();
    const auto [scale_out, inv_out] = random_scale();
    const QParams qa{scale_a, inv_a, static_cast<int32_t>(integer(0, 255)), 0, 255};
    const QParams qb{scale_b, inv_b, static_cast<int32_t>(integer(0, 255)), 0, 255};
    const QParams out{scale_out, inv_out, static_cast<int32_t>(integer(5, 200)), 5, 200};
    Buffer<uint8_t> a(n, integer(0, 63));
    Buffer<uint8_t> b(n, integer(0, 63));
    for (uint8_t& code : a) code = static_cast<uint8_t>(integer(0, 255));
    for (uint8_t& code : b) code = static_cast<uint8_t>(integer(0, 255));
    Buffer<uint8_t> codes(n, integer(0, 63));
    Buffer<float> floats(n, 4 * integer(0, 15));
    Epilogue epilogue{};
    epilogue.clamp_min = chance(0.5) ? 0.0f : -kInf;
    epilogue.clamp_max = chance(0.5) ? 2.0f : kInf;
    epilogue.out_u8 = codes.data();
    epilogue.out = out;
    kernel().add(a.data(), qa, b.data(), qb, n, epilogue);
    epilogue.out_u8 = nullptr;
    epilogue.out_f32 = floats.data();
    kernel().add(a.data(), qa, b.data(), qb, n, epilogue);
    for (int64_t i = 0; i < n; ++i) {
      const float sum = expected_value(a[i], qa) + expected_value(b[i], qb);
      const float y = expected_clamp(sum, epilogue.clamp_min, epilogue.clamp_max);
      ASSERT_TRUE(same(floats[i], y)) << "element " << i << " of " << n;
      ASSERT_TRUE(same(codes[i], expected_code(y, out))) << "element " << i << " of " << n;
    }
    EXPECT_TRUE(codes.zones_intact() && floats.zones_intact()) << n;
  }
}

QATX_FOR_ALL_ROWS(ElementwiseTest);

}  // namespace
}  // namespace qatx::kernels
