#include "qatx/kernels/fake_quantize.h"

#include <limits>

#include "kernel_test.h"

namespace qatx::kernels {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

struct Expected {
  float y;
  float dx;
  float dscale;
  float dzero_point;
};

// The numeric contract as it stands in the header.
Expected expected(float g, float x, const ChannelQParams& p, QuantRange range) {
  const float scaled = x * p.inv_scale;
  const float v = std::nearbyint(scaled) + p.zero_point;
  const bool in = v >= range.quant_min && v <= range.quant_max;
  const float q = std::isnan(v)         ? v
                  : in                  ? v
                  : v < range.quant_min ? range.quant_min
                                        : range.quant_max;
  const float steps = q - p.zero_point;
  const float product = g * p.scale;
  return {steps * p.scale, in ? g : 0.0f, g * (in ? steps - scaled : steps), in ? 0.0f : -product};
}

// All integer ranges of 2 to 8 bits, signed and unsigned.
std::vector<QuantRange> ranges() {
  std::vector<QuantRange> result;
  for (int bits = 2; bits <= 8; ++bits) {
    const auto codes = static_cast<float>(1 << bits);
    result.push_back({0.0f, codes - 1.0f});
    result.push_back({-codes / 2.0f, codes / 2.0f - 1.0f});
  }
  return result;
}

class FakeQuantizeKernelTest : public KernelTest {
 protected:
  const FakeQuantizeKernels& kernel() const { return row().fake_quantize; }

  ChannelQParams random_qparams(QuantRange range) {
    const float scales[] = {0.05f, 1.0f, 1.0f / 3.0f, 0x1p-126f, 0x1p126f, real(1e-4f, 10.0f)};
    const float scale = scales[integer(0, 5)];
    const float zero_point = static_cast<float>(
        integer(static_cast<int64_t>(range.quant_min), static_cast<int64_t>(range.quant_max)));
    return {scale, 1.0f / scale, zero_point == 0.0f && chance(0.5) ? -0.0f : zero_point};
  }

  // Mostly values around the range, with ties, the ends of the range, and everything that is
  // special.
  float random_value(const ChannelQParams& p, QuantRange range) {
    constexpr float special[] = {kNan,   -kNan,   kInf,      -kInf, 0.0f,   -0.0f,
                                 1e-45f, -1e-45f, 0x1p-126f, 3e38f, -3e38f, 8388609.0f};
    if (chance(0.1)) return special[integer(0, 11)];
    const auto code = static_cast<float>(integer(static_cast<int64_t>(range.quant_min) - 3,
                                                 static_cast<int64_t>(range.quant_max) + 3));
    const float offset = chance(0.3) ? 0.5f : chance(0.3) ? 0.0f : real(-0.5f, 0.5f);
    return (code - p.zero_point + offset) * p.scale;
  }

  float random_gradient() {
    constexpr float special[] = {kNan, kInf, -0.0f, 0.0f, 1e-45f, 3e38f};
    return chance(0.02) ? special[integer(0, 5)] : real(-2.0f, 2.0f);
  }

  void check_forward_run(int64_t n, QuantRange range, bool in_place) {
    const ChannelQParams p = random_qparams(range);
    Buffer<float> x(n, 4 * integer(0, 15));
    Buffer<float> y(n, 4 * integer(0, 15));
    std::vector<float> input;
    for (float& value : x) input.push_back(value = random_value(p, range));
    float* out = in_place ? x.data() : y.data();
    kernel().forward_run(x.data(), out, n, p, range);
    for (int64_t i = 0; i < n; ++i) {
      const float value = input[static_cast<size_t>(i)];
      ASSERT_TRUE(same(out[i], expected(1.0f, value, p, range).y))
          << "x = " << value << ", element " << i << " of " << n;
    }
    EXPECT_TRUE(x.zones_intact() && y.zones_intact()) << n;
  }

  void check_backward_run(int64_t n, QuantRange range, bool special) {
    const ChannelQParams p = random_qparams(range);
    Buffer<float> g(n, 4 * integer(0, 15));
    Buffer<float> x(n, 4 * integer(0, 15));
    Buffer<float> dx(n, 4 * integer(0, 15));
    for (float& value : g) value = special ? random_gradient() : real(-2.0f, 2.0f);
    for (float& value : x) {
      do value = random_value(p, range);
      while (!special && !std::isfinite(value));
    }
    Buffer<float> dscale(kLanes, 4 * integer(0, 15));
    Buffer<float> dzero_point(kLanes, 4 * integer(0, 15));
    float scale_sums[kLanes];
    float zero_point_sums[kLanes];
    for (int i = 0; i < kLanes; ++i) {
      scale_sums[i] = dscale[i] = chance(0.2) ? -0.0f : real(-1.0f, 1.0f);
      zero_point_sums[i] = dzero_point[i] = chance(0.2) ? -0.0f : real(-1.0f, 1.0f);
    }
    kernel().backward_run(g.data(), x.data(), dx.data(), n, p, range, dscale.data(),
                          dzero_point.data());
    for (int64_t i = 0; i < n; ++i) {
      const Expected e = expected(g[i], x[i], p, range);
      ASSERT_TRUE(same(dx[i], e.dx)) << "x = " << x[i] << ", element " << i << " of " << n;
      scale_sums[i % kLanes] += e.dscale;
      zero_point_sums[i % kLanes] += e.dzero_point;
    }
    for (int i = 0; i < kLanes; ++i) {
      ASSERT_TRUE(same(dscale[i], scale_sums[i])) << "lane " << i << ", n = " << n;
      ASSERT_TRUE(same(dzero_point[i], zero_point_sums[i])) << "lane " << i << ", n = " << n;
    }
    EXPECT_TRUE(dx.zones_intact() && dscale.zones_intact() && dzero_point.zones_intact()) << n;
  }
};

TEST_P(FakeQuantizeKernelTest, ForwardRunFollowsTheContract) {
  for (const QuantRange range : ranges()) {
    for (int64_t n = 0; n <= 70; ++n) {
      check_forward_run(n, range, false);
      if (HasFatalFailure()) return;
    }
    check_forward_run(2000, range, false);
    check_forward_run(77, range, true);
  }
}

TEST_P(FakeQuantizeKernelTest, SpecialValues) {
  const ChannelQParams p{0.5f, 2.0f, 3.0f};
  const QuantRange range{0.0f, 15.0f};
  // Ties go to even; NaN stays; infinities, and what overflows, saturate.
  const std::vector<std::pair<float, float>> cases = {
      {0.25f, 0.0f}, {0.75f, 1.0f},  {1.25f, 1.0f},  {-0.25f, 0.0f}, {-0.75f, -1.0f},
      {kNan, kNan},  {kInf, 6.0f},   {-kInf, -1.5f}, {3e38f, 6.0f},  {-3e38f, -1.5f},
      {-0.0f, 0.0f}, {1e-45f, 0.0f}, {6.1f, 6.0f},   {6.3f, 6.0f},   {-1.75f, -1.5f}};
  for (const auto& [x, y] : cases) {
    // In a full vector and in a tail.
    for (const int64_t n : {1, 16}) {
      std::vector<float> values(static_cast<size_t>(n), x);
      kernel().forward_run(values.data(), values.data(), n, p, range);
      for (const float value : values) EXPECT_TRUE(same(value, y)) << "x = " << x;
    }
  }
}

TEST_P(FakeQuantizeKernelTest, BackwardRunFollowsTheContract) {
  for (const QuantRange range : ranges()) {
    for (int64_t n = 0; n <= 70; ++n) {
      check_backward_run(n, range, false);
      check_backward_run(n, range, true);
      if (HasFatalFailure()) return;
    }
    check_backward_run(4096 + 5, range, false);
  }
}

TEST_P(FakeQuantizeKernelTest, RunsInPiecesOfWholeLanesGiveTheSameSums) {
  const QuantRange range{-128.0f, 127.0f};
  const ChannelQParams p{0.05f, 1.0f / 0.05f, 3.0f};
  constexpr int64_t kSize = 1003;
  std::vector<float> x(kSize);
  std::vector<float> g(kSize);
  std::vector<float> dx(kSize);
  for (float& value : x) value = real(-8.0f, 8.0f);
  for (float& value : g) value = real(-1.0f, 1.0f);
  float whole[2][kLanes] = {};
  kernel().backward_run(g.data(), x.data(), dx.data(), kSize, p, range, whole[0], whole[1]);
  float pieces[2][kLanes] = {};
  for (int64_t i = 0; i < kSize; i += 7 * kLanes) {
    kernel().backward_run(g.data() + i, x.data() + i, dx.data() + i,
                          std::min<int64_t>(7 * kLanes, kSize - i), p, range, pieces[0], pieces[1]);
  }
  EXPECT_EQ(std::memcmp(whole, pieces, sizeof(whole)), 0);
}

TEST_P(FakeQuantizeKernelTest, RowsFollowTheContractInEachChannel) {
  for (int64_t channels = 1; channels <= 130; channels += channels < 36 ? 1 : 7) {
    const QuantRange range = ranges()[static_cast<size_t>(channels) % ranges().size()];
    const int64_t rows = integer(1, 9);
    const auto size = static_cast<size_t>(channels);
    std::vector<ChannelQParams> p;
    Buffer<float> scale(channels);
    Buffer<float> inv_scale(channels);
    Buffer<float> zero_point(channels);
    for (int64_t c = 0; c < channels; ++c) {
      p.push_back(random_qparams(range));
      scale[c] = p.back().scale;
      inv_scale[c] = p.back().inv_scale;
      zero_point[c] = p.back().zero_point;
    }
    Buffer<float> x(rows * channels, 4);
    Buffer<float> g(rows * channels, 8);
    Buffer<float> y(rows * channels, 12);
    Buffer<float> dx(rows * channels, 20);
    for (int64_t i = 0; i < x.size(); ++i) {
      x[i] = random_value(p[static_cast<size_t>(i % channels)], range);
      g[i] = random_gradient();
    }
    Buffer<float> dscale(channels);
    Buffer<float> dzero_point(channels);
    std::vector<float> scale_sums(size);
    std::vector<float> zero_point_sums(size);
    for (int64_t c = 0; c < channels; ++c) {
      scale_sums[static_cast<size_t>(c)] = dscale[c] = real(-1.0f, 1.0f);
      zero_point_sums[static_cast<size_t>(c)] = dzero_point[c] = real(-1.0f, 1.0f);
    }
    kernel().forward_rows(x.data(), y.data(), rows, channels, scale.data(), inv_scale.data(),
                          zero_point.data(), range);
    kernel().backward_rows(g.data(), x.data(), dx.data(), rows, channels, scale.data(),
                           inv_scale.data(), zero_point.data(), range, dscale.data(),
                           dzero_point.data());
    for (int64_t i = 0; i < x.size(); ++i) {
      const auto c = static_cast<size_t>(i % channels);
      const Expected e = expected(g[i], x[i], p[c], range);
      ASSERT_TRUE(same(y[i], e.y)) << "x = " << x[i] << ", channel " << c << " of " << channels;
      ASSERT_TRUE(same(dx[i], e.dx)) << "x = " << x[i] << ", channel " << c << " of " << channels;
      scale_sums[c] += e.dscale;
      zero_point_sums[c] += e.dzero_point;
    }
    for (int64_t c = 0; c < channels; ++c) {
      ASSERT_TRUE(same(dscale[c], scale_sums[static_cast<size_t>(c)])) << c << " of " << channels;
      ASSERT_TRUE(same(dzero_point[c], zero_point_sums[static_cast<size_t>(c)]))
          << c << " of " << channels;
    }
    EXPECT_TRUE(y.zones_intact() && dx.zones_intact() && dscale.zones_intact() &&
                dzero_point.zones_intact())
        << channels;
  }
}

TEST_P(FakeQuantizeKernelTest, RowsEqualRuns) {
  constexpr int64_t kRows = 5;
  constexpr int64_t kChannels = 37;
  const QuantRange range{-8.0f, 7.0f};
  const std::vector<float> scale(kChannels, 0.3f);
  const std::vector<float> inv_scale(kChannels, 1.0f / 0.3f);
  const std::vector<float> zero_point(kChannels, -2.0f);
  std::vector<float> x(kRows * kChannels);
  for (float& value : x) value = real(-4.0f, 4.0f);
  std::vector<float> rows(x.size());
  std::vector<float> run(x.size());
  kernel().forward_rows(x.data(), rows.data(), kRows, kChannels, scale.data(), inv_scale.data(),
                        zero_point.data(), range);
  kernel().forward_run(x.data(), run.data(), kRows * kChannels, {0.3f, 1.0f / 0.3f, -2.0f}, range);
  EXPECT_EQ(std::memcmp(rows.data(), run.data(), x.size() * sizeof(float)), 0);
}

QATX_FOR_ALL_ROWS(FakeQuantizeKernelTest);

}  // namespace
}  // namespace qatx::kernels
