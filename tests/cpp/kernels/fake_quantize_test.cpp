#include "qatx/kernels/fake_quantize.h"

#include <algorithm>
#include <array>
#include <limits>

#include "element_testing.h"
#include "kernel_test.h"

namespace qatx::kernels {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

// Equal bits, or both NaN.
template <class Real>
bool equal(Real a, Real b) {
  return std::memcmp(&a, &b, sizeof(a)) == 0 || (std::isnan(a) && std::isnan(b));
}

template <class Real>
struct QParams1 {
  Real scale;
  Real inv_scale;
  Real zero_point;
};

template <class Real>
struct Expected {
  Real y;
  bool in;
  Real dscale;
  Real outside;
  int code;
};

// The numeric contract as it stands in docs/numerics.md: codes, not steps from the zero point.
template <class Real>
Expected<Real> expected(Real g, Real x, const QParams1<Real>& p, QuantRange range,
                        const float* noise) {
  const Real scaled = x * p.inv_scale;
  Real rounded = std::nearbyint(scaled);
  if (noise != nullptr) {
    rounded = std::floor(scaled);
    if (static_cast<Real>(*noise) < scaled - rounded) rounded += 1;
  }
  const Real v = rounded + p.zero_point;
  const bool in = v >= range.quant_min && v <= range.quant_max;
  const Real q = std::isnan(v)         ? v
                 : in                  ? v
                 : v < range.quant_min ? static_cast<Real>(range.quant_min)
                                       : static_cast<Real>(range.quant_max);
  const Real steps = q - p.zero_point;
  return {steps * p.scale, in, g * (in ? steps - scaled : steps), in ? Real{0} : g,
          static_cast<int>(std::isnan(q) ? p.zero_point : q)};
}

// All integer ranges of 2 to 8 bits, signed and unsigned, and ternary.
std::vector<QuantRange> ranges() {
  std::vector<QuantRange> result = {{-1.0f, 1.0f}};
  for (int bits = 2; bits <= 8; ++bits) {
    const auto codes = static_cast<float>(1 << bits);
    result.push_back({0.0f, codes - 1.0f});
    result.push_back({-codes / 2.0f, codes / 2.0f - 1.0f});
  }
  return result;
}

// Sums 16 lanes as the header says.
template <class Real>
Real sum_of(std::array<Real, kLanes> lanes) {
  for (size_t width = kLanes / 2; width > 0; width /= 2) {
    for (size_t i = 0; i < width; ++i) lanes[i] += lanes[i + width];
  }
  return lanes[0];
}

// How elements lie: runs of n with parameters each, or rows of channels.
struct Shape {
  bool rows;
  int64_t outer;
  int64_t inner;

  int64_t size() const { return outer * inner; }
  int64_t num_qparams() const { return rows ? inner : outer; }
  int64_t qparams(int64_t i) const { return rows ? i % inner : i / inner; }
  // The lane that element i is added to; all rows are added in order.
  size_t lane(int64_t i) const { return rows ? 0 : static_cast<size_t>(i % inner % kLanes); }
};

class FakeQuantizeKernelTest : public KernelTest {
 protected:
  template <class Real>
  QParams1<Real> random_qparams(QuantRange range) {
    const float scales[] = {0.05f, 1.0f, 1.0f / 3.0f, 0x1p-126f, 0x1p126f, real(1e-4f, 10.0f)};
    const Real scale = scales[integer(0, 5)];
    const auto zero_point = static_cast<Real>(
        integer(static_cast<int64_t>(range.quant_min), static_cast<int64_t>(range.quant_max)));
    return {scale, 1 / scale, zero_point == 0 && chance(0.5) ? -Real{0} : zero_point};
  }

  // Mostly values around the range, with ties, the ends of the range, and everything that is
  // special.
  template <class Real>
  Real random_value(const QParams1<Real>& p, QuantRange range) {
    constexpr float special[] = {kNan,   -kNan,   kInf,      -kInf, 0.0f,   -0.0f,
                                 1e-45f, -1e-45f, 0x1p-126f, 3e38f, -3e38f, 8388609.0f};
    if (chance(0.1)) return special[integer(0, 11)];
    const auto code = static_cast<Real>(integer(static_cast<int64_t>(range.quant_min) - 3,
                                                static_cast<int64_t>(range.quant_max) + 3));
    const Real offset = chance(0.3) ? 0.5f : chance(0.3) ? 0.0f : real(-0.5f, 0.5f);
    return (code - p.zero_point + offset) * p.scale;
  }

  float random_gradient() {
    constexpr float special[] = {kNan, kInf, -0.0f, 0.0f, 1e-45f, 3e38f};
    return chance(0.02) ? special[integer(0, 5)] : real(-2.0f, 2.0f);
  }

  // Every kernel on one shape, against the oracle.
  template <class T>
  void check(const Shape& shape, QuantRange range, bool stochastic) {
    using E = Element<T>;
    using Real = typename RealOf<T>::type;
    const auto& kernels = kernels_for<T>(row().fake_quantize, row().fake_quantize_f64);
    const int64_t n = shape.size();
    const int64_t count = shape.num_qparams();

    std::vector<QParams1<Real>> qparams;
    Buffer<Real> scale(count);
    Buffer<Real> inv_scale(count);
    Buffer<Real> low(count);
    Buffer<Real> high(count);
    for (int64_t c = 0; c < count; ++c) {
      qparams.push_back(random_qparams<Real>(range));
      scale[c] = qparams.back().scale;
      inv_scale[c] = qparams.back().inv_scale;
      low[c] = range.quant_min - qparams.back().zero_point;
      high[c] = range.quant_max - qparams.back().zero_point;
    }
    const QParamsView<Real> view{scale.data(), inv_scale.data(), low.data(), high.data()};
    Buffer<T> x(n, sizeof(T) * static_cast<size_t>(integer(0, 15)));
    Buffer<T> g(n, sizeof(T) * static_cast<size_t>(integer(0, 15)));
    Buffer<float> numbers(n, 4 * integer(0, 15));
    for (int64_t i = 0; i < n; ++i) {
      const auto& p = qparams[static_cast<size_t>(shape.qparams(i))];
      x[i] = E::make(random_value(p, range));
      g[i] = E::make(random_gradient());
      numbers[i] = real(0.0f, 1.0f);
    }
    const float* noise = stochastic ? numbers.data() : nullptr;
    const bool pass_through = chance(0.3);

    Buffer<T> y(n, sizeof(T) * static_cast<size_t>(integer(0, 15)));
    Buffer<T> dx(n, sizeof(T) * static_cast<size_t>(integer(0, 15)));
    Buffer<uint8_t> codes(n, integer(0, 15));
    Buffer<T> back(n, sizeof(T) * static_cast<size_t>(integer(0, 15)));
    Buffer<Real> dscale(count);
    Buffer<Real> outside(count);
    const bool is_signed = range.quant_min < 0;
    (shape.rows ? kernels.forward_rows : kernels.forward_runs)(x.data(), y.data(), shape.outer,
                                                               shape.inner, view, noise);
    (shape.rows ? kernels.backward_rows : kernels.backward_runs)(
        g.data(), x.data(), dx.data(), shape.outer, shape.inner, view, {pass_through, noise},
        dscale.data(), outside.data());
    (shape.rows ? kernels.quantize_rows : kernels.quantize_runs)(
        x.data(), codes.data(), shape.outer, shape.inner, view, range);
    (shape.rows ? kernels.dequantize_rows : kernels.dequantize_runs)(
        codes.data(), is_signed, back.data(), shape.outer, shape.inner, view, range);

    std::vector<std::array<Real, kLanes>> scale_lanes(static_cast<size_t>(count));
    std::vector<std::array<Real, kLanes>> outside_lanes(static_cast<size_t>(count));
    for (int64_t i = 0; i < n; ++i) {
      const auto c = static_cast<size_t>(shape.qparams(i));
      const auto& p = qparams[c];
      const Real gradient = E::real(g[i]);
      const Real value = E::real(x[i]);
      const auto e = expected(gradient, value, p, range, noise == nullptr ? nullptr : noise + i);
      ASSERT_TRUE(equal(E::real(y[i]), E::real(E::make(e.y)))) << "x = " << value << " at " << i;
      const T kept = e.in || pass_through ? g[i] : E::make(0);
      ASSERT_EQ(std::memcmp(&dx[i], &kept, sizeof(T)), 0) << "x = " << value << " at " << i;
      const int code = expected(gradient, value, p, range, nullptr).code;
      ASSERT_EQ(is_signed ? static_cast<int8_t>(codes[i]) : codes[i], code) << value;
      const Real steps = static_cast<Real>(code) - p.zero_point;
      ASSERT_TRUE(equal(E::real(back[i]), E::real(E::make(steps * p.scale)))) << code;
      scale_lanes[c][shape.lane(i)] += e.dscale;
      outside_lanes[c][shape.lane(i)] += e.outside;
    }
    for (int64_t c = 0; c < count; ++c) {
      const auto i = static_cast<size_t>(c);
      ASSERT_TRUE(equal(dscale[c], sum_of(scale_lanes[i]))) << c << " of " << count;
      ASSERT_TRUE(equal(outside[c], sum_of(outside_lanes[i]))) << c << " of " << count;
    }
    EXPECT_TRUE(y.zones_intact() && dx.zones_intact() && codes.zones_intact() &&
                back.zones_intact() && dscale.zones_intact() && outside.zones_intact());

    check_clipping<T>(shape, g, x);
    check_ranges<T>(shape, x);
  }

  template <class T>
  void check_clipping(const Shape& shape, Buffer<T>& g, Buffer<T>& x) {
    using E = Element<T>;
    using Real = typename RealOf<T>::type;
    const auto& kernels = kernels_for<T>(row().fake_quantize, row().fake_quantize_f64);
    const int64_t count = shape.num_qparams();
    Buffer<Real> alpha(count);
    for (Real& value : alpha) value = real(0.1f, 3.0f);
    Buffer<T> dx(shape.size(), sizeof(T));
    Buffer<Real> dalpha(count);
    (shape.rows ? kernels.clip_backward_rows : kernels.clip_backward_runs)(
        g.data(), x.data(), dx.data(), shape.outer, shape.inner, alpha.data(), dalpha.data());
    std::vector<std::array<Real, kLanes>> lanes(static_cast<size_t>(count));
    for (int64_t i = 0; i < shape.size(); ++i) {
      const int64_t c = shape.qparams(i);
      const Real value = E::real(x[i]);
      const T kept = value >= 0 && value < alpha[c] ? g[i] : E::make(0);
      ASSERT_EQ(std::memcmp(&dx[i], &kept, sizeof(T)), 0) << "x = " << value;
      if (value >= alpha[c]) lanes[static_cast<size_t>(c)][shape.lane(i)] += E::real(g[i]);
    }
    for (int64_t c = 0; c < count; ++c) {
      ASSERT_TRUE(equal(dalpha[c], sum_of(lanes[static_cast<size_t>(c)]))) << c;
    }
    EXPECT_TRUE(dx.zones_intact() && dalpha.zones_intact());
  }

  template <class T>
  void check_ranges(const Shape& shape, Buffer<T>& x) {
    using E = Element<T>;
    using Real = typename RealOf<T>::type;
    const auto& kernels = kernels_for<T>(row().fake_quantize, row().fake_quantize_f64);
    const int64_t count = shape.num_qparams();
    Buffer<Real> min(count);
    Buffer<Real> max(count);
    (shape.rows ? kernels.range_rows : kernels.range_runs)(x.data(), shape.outer, shape.inner,
                                                           min.data(), max.data());
    std::vector<Real> low(static_cast<size_t>(count), std::numeric_limits<Real>::infinity());
    std::vector<Real> high(static_cast<size_t>(count), -std::numeric_limits<Real>::infinity());
    for (int64_t i = 0; i < shape.size(); ++i) {
      const Real value = E::real(x[i]);
      const auto c = static_cast<size_t>(shape.qparams(i));
      if (!std::isfinite(value)) continue;
      low[c] = std::min(low[c], value == 0 ? 0 : value);
      high[c] = std::max(high[c], value == 0 ? 0 : value);
    }
    for (int64_t c = 0; c < count; ++c) {
      const auto i = static_cast<size_t>(c);
      ASSERT_TRUE(equal(min[c], low[i])) << min[c] << " instead of " << low[i];
      ASSERT_TRUE(equal(max[c], high[i])) << max[c] << " instead of " << high[i];
    }
    EXPECT_TRUE(min.zones_intact() && max.zones_intact());
  }

  template <class T>
  void check_all_shapes() {
    size_t i = 0;
    for (int64_t inner = 1; inner <= 70; inner += inner < 36 ? 1 : 5) {
      for (const bool rows : {false, true}) {
        const QuantRange range = ranges()[i++ % ranges().size()];
        check<T>({rows, integer(1, 9), inner}, range, chance(0.3));
        if (HasFatalFailure()) return;
      }
    }
    for (const QuantRange range : ranges()) {
      check<T>({false, 1, 2003}, range, false);
      check<T>({true, 21, 133}, range, false);
      if (HasFatalFailure()) return;
    }
    check<T>({false, 2, 1000}, {0.0f, 255.0f}, true);
    check<T>({true, 13, 40}, {-128.0f, 127.0f}, true);
  }
};

TEST_P(FakeQuantizeKernelTest, Float32FollowsTheContract) { check_all_shapes<float>(); }
TEST_P(FakeQuantizeKernelTest, BFloat16FollowsTheContract) { check_all_shapes<BFloat16>(); }
TEST_P(FakeQuantizeKernelTest, Float16FollowsTheContract) { check_all_shapes<Half>(); }
TEST_P(FakeQuantizeKernelTest, Float64FollowsTheContract) { check_all_shapes<double>(); }

TEST_P(FakeQuantizeKernelTest, EveryFloat16IsReadAndWrittenRight) {
  const float scale = 1.0f;
  const float low = -128.0f;
  const float high = 127.0f;
  const QParamsView<float> view{&scale, &scale, &low, &high};
  for (uint32_t first = 0; first < 0x10000; first += 64) {
    Half in[64];
    Half dx[64];
    float dscale = 0;
    float outside = 0;
    for (uint32_t i = 0; i < 64; ++i) in[i] = {static_cast<uint16_t>(first + i)};
    Half out[64];
    row().fake_quantize.f16.forward_runs(in, out, 1, 64, view, nullptr);
    row().fake_quantize.f16.backward_runs(in, in, dx, 1, 64, view, {true, nullptr}, &dscale,
                                          &outside);
    for (uint32_t i = 0; i < 64; ++i) {
      const float x = Element<Half>::real(in[i]);
      const float y = std::isnan(x) ? x : std::min(high, std::max(low, std::nearbyint(x)));
      ASSERT_TRUE(equal(Element<Half>::real(out[i]), y + 0.0f)) << x;
      ASSERT_EQ(dx[i].bits, in[i].bits);  // passed through bit for bit
    }
  }
}

TEST_P(FakeQuantizeKernelTest, SpecialValues) {
  const float scale = 0.5f;
  const float inv_scale = 2.0f;
  const float low = -3.0f;
  const float high = 12.0f;
  // Ties go to even; NaN stays; infinities, and what overflows, saturate.
  const std::vector<std::pair<float, float>> cases = {
      {0.25f, 0.0f}, {0.75f, 1.0f},  {1.25f, 1.0f},  {-0.25f, 0.0f}, {-0.75f, -1.0f},
      {kNan, kNan},  {kInf, 6.0f},   {-kInf, -1.5f}, {3e38f, 6.0f},  {-3e38f, -1.5f},
      {-0.0f, 0.0f}, {1e-45f, 0.0f}, {6.1f, 6.0f},   {6.3f, 6.0f},   {-1.75f, -1.5f}};
  for (const auto& [x, y] : cases) {
    // In a full vector and in a tail; in place.
    for (const int64_t n : {1, 16}) {
      std::vector<float> values(static_cast<size_t>(n), x);
      row().fake_quantize.f32.forward_runs(values.data(), values.data(), 1, n,
                                           {&scale, &inv_scale, &low, &high}, nullptr);
      for (const float value : values) EXPECT_TRUE(equal(value, y)) << "x = " << x;
    }
  }
}

TEST_P(FakeQuantizeKernelTest, PreparesAndChecksParameters) {
  const std::vector<float> bad = {0.0f, -1.0f, kNan, kInf, 0x1p-127f, 0x1p127f};
  for (int64_t n = 1; n <= 40; ++n) {
    Buffer<float> scale(n);
    Buffer<float> zero_point(n);
    Buffer<float> inv_scale(n);
    Buffer<float> low(n);
    Buffer<float> high(n);
    for (int64_t i = 0; i < n; ++i) {
      scale[i] = chance(0.2) ? 0x1p-126f : chance(0.2) ? 0x1p126f : real(1e-3f, 10.0f);
      zero_point[i] = chance(0.1) ? kInf : static_cast<float>(integer(-40, 40)) / 2.0f;
    }
    const auto prepare = [&] {
      return row().fake_quantize.f32.prepare(scale.data(), zero_point.data(), n, {-8.0f, 7.0f},
                                             inv_scale.data(), low.data(), high.data());
    };
    const auto check = [&] {
      return row().fake_quantize.f32.prepare(scale.data(), zero_point.data(), n, {-8.0f, 7.0f},
                                             nullptr, nullptr, nullptr);
    };
    ASSERT_TRUE(prepare() && check());
    for (int64_t i = 0; i < n; ++i) {
      ASSERT_TRUE(equal(inv_scale[i], 1.0f / scale[i]));
      const float z = std::nearbyint(zero_point[i]);
      const float in_use = z < -8.0f ? -8.0f : z > 7.0f ? 7.0f : z;
      ASSERT_EQ(low[i], -8.0f - in_use);
      ASSERT_EQ(high[i], 7.0f - in_use);
    }
    EXPECT_TRUE(inv_scale.zones_intact() && low.zones_intact() && high.zones_intact());
    const int64_t at = integer(0, n - 1);
    const float before = scale[at];
    for (const float value : bad) {
      scale[at] = value;
      EXPECT_FALSE(prepare()) << value << " at " << at << " of " << n;
      EXPECT_FALSE(check()) << value << " at " << at << " of " << n;
    }
    scale[at] = before;
    zero_point[at] = kNan;
    EXPECT_FALSE(prepare()) << "NaN at " << at << " of " << n;
  }
}

TEST_P(FakeQuantizeKernelTest, ScalesSumsInDouble) {
  for (int64_t n = 0; n <= 40; ++n) {
    Buffer<float> sums(n);
    Buffer<float> twice(n);
    Buffer<float> factors(n);
    for (int64_t i = 0; i < n; ++i) {
      sums[i] = twice[i] = real(-5.0f, 5.0f);
      factors[i] = real(0.001f, 1.0f);
    }
    const std::vector<float> before(sums.data(), sums.data() + n);
    const double factor = 1.0 / 3.0;
    row().fake_quantize.f32.scale_sums(sums.data(), n, factor, nullptr);
    row().fake_quantize.f32.scale_sums(twice.data(), n, factor, factors.data());
    for (int64_t i = 0; i < n; ++i) {
      const double sum = before[static_cast<size_t>(i)];
      ASSERT_EQ(sums[i], static_cast<float>(sum * factor));
      ASSERT_EQ(twice[i], static_cast<float>(sum * (double{factors[i]} * factor)));
    }
    EXPECT_TRUE(sums.zones_intact() && twice.zones_intact());
  }
}

// Philox 4x32-10 with the known answers of its authors (Random123, kat_vectors).
TEST_P(FakeQuantizeKernelTest, NoiseIsPhilox) {
  const auto& noise = row().fake_quantize.noise;
  const auto number = [](uint32_t word) { return static_cast<float>(word >> 8) * 0x1p-24f; };
  float first[4];
  noise(0, 0, 4, first);
  const uint32_t known[4] = {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8};
  for (int i = 0; i < 4; ++i) EXPECT_EQ(first[i], number(known[i])) << i;

  // A part of the stream is the same wherever it begins.
  std::vector<float> all(1000);
  noise(0x123456789abcdefull, 0, 1000, all.data());
  for (int64_t begin = 0; begin < 100; begin += 7) {
    for (const int64_t n : {1, 3, 64, 65, 200}) {
      Buffer<float> part(n);
      noise(0x123456789abcdefull, begin, n, part.data());
      EXPECT_EQ(std::memcmp(part.data(), all.data() + begin, static_cast<size_t>(n) * 4), 0);
      EXPECT_TRUE(part.zones_intact());
    }
  }
  double sum = 0;
  for (const float value : all) {
    ASSERT_TRUE(value >= 0.0f && value < 1.0f);
    sum += value;
  }
  EXPECT_NEAR(sum / 1000, 0.5, 5 * 0.0092);  // 5 sigma
}

QATX_FOR_ALL_ROWS(FakeQuantizeKernelTest);

}  // namespace
}  // namespace qatx::kernels
