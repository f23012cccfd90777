#include "qatx/kernels/rows.h"

#include <algorithm>
#include <limits>

#include "kernel_test.h"
#include "qatx/kernels/fake_quantize.h"

namespace qatx::kernels {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

// Sums as rows.h has them.
float lane_sum(const std::vector<float>& values) {
  std::vector<float> lanes(kLanes, 0.0f);
  for (size_t i = 0; i < values.size(); ++i) lanes[i % kLanes] += values[i];
  for (size_t width = kLanes / 2; width > 0; width /= 2) {
    for (size_t i = 0; i < width; ++i) lanes[i] += lanes[i + width];
  }
  return lanes[0];
}

float exponential(float u) {
  if (std::isnan(u)) return kNaN;
  if (u < -87.0f) return 0.0f;
  const float k = std::nearbyint(u * 1.44269504088896341f);
  const float high = k * 0.693359375f;
  const float low = k * -2.12194440e-4f;
  const float r = (u - high) - low;
  float p = 1.9875691500e-4f;
  for (const float c :
       {1.3981999507e-3f, 8.3334519073e-3f, 4.1665795894e-2f, 1.6666665459e-1f, 5.0000001201e-1f}) {
    const float product = p * r;
    p = product + c;
  }
  const float square = r * r;
  const float bent = p * square;
  return ((bent + r) + 1.0f) * std::ldexp(1.0f, static_cast<int>(k));
}

class RowsTest : public KernelTest {
 protected:
  const RowKernels& kernel() const { return row().rows; }

  // Rows of random elements, now and then of special ones, with their epilogue and output.
  struct Case {
    Case(RowsTest& test, int64_t row_count, int64_t length)
        : n(length),
          x(row_count * length, 4 * test.integer(0, 3)),
          mask(row_count * length),
          stride(length + test.integer(0, 3)),
          codes(row_count * stride, test.integer(0, 3)),
          floats(row_count * stride),
          wants_codes(test.chance(0.5)) {
      const float most = test.chance(0.3) ? 100.0f : 4.0f;
      const bool special = test.chance(0.2);
      for (float& value : x) {
        constexpr float kSpecial[] = {kInf, -kInf, kNaN, 0.0f, -0.0f};
        value =
            special && test.chance(0.05) ? kSpecial[test.integer(0, 4)] : test.real(-most, most);
      }
      const bool replace = test.chance(0.4);
      for (float& value : mask) {
        value = test.chance(0.3) ? -kInf : replace ? kNaN : test.real(-1.0f, 1.0f);
      }
      rows = {x.data(), row_count, n, 1.0f, test.chance(0.4), nullptr, 0, replace};
      if (test.chance(0.6)) rows.factor = test.real(0.1f, 9.0f);
      if (test.chance(0.5)) {
        rows.mask = mask.data();
        rows.mask_stride = test.chance(0.5) ? n : 0;
      }
      epilogue.clamp_min = test.chance(0.7) ? -kInf : 0.01f;
      epilogue.clamp_max = test.chance(0.7) ? kInf : 0.5f;
      epilogue.out_stride = stride;
      if (wants_codes) {
        epilogue.out_u8 = codes.data();
        epilogue.out = {1.0f / 200, 1.0f / (1.0f / 200), 20, 1, 250};
      } else {
        epilogue.out_f32 = floats.data();
      }
    }

    float element(int64_t r, int64_t i) const {
      const float t = rows.divide ? x[r * n + i] / rows.factor : x[r * n + i] * rows.factor;
      if (!rows.mask) return t;
      const float m = rows.mask[r * rows.mask_stride + i];
      return !rows.replace ? t + m : std::isnan(m) ? t : m;
    }

    // expected(r) gives the row before clamping.
    template <class F>
    void check(const F& expected) const {
      for (int64_t r = 0; r < rows.rows; ++r) {
        const std::vector<float> y = expected(r);
        for (int64_t i = 0; i < stride; ++i) {
          const int64_t at = r * stride + i;
          if (i >= n) {
            ASSERT_TRUE(codes.untouched(at) && floats.untouched(at));
            continue;
          }
          const float clamped =
              expected_clamp(y[static_cast<size_t>(i)], epilogue.clamp_min, epilogue.clamp_max);
          if (wants_codes) {
            ASSERT_TRUE(same(codes[at], expected_code(clamped, epilogue.out))) << r << ", " << i;
          } else {
            ASSERT_TRUE(same(floats[at], clamped)) << "row " << r << ", element " << i;
          }
        }
      }
      ASSERT_TRUE(codes.zones_intact() && floats.zones_intact());
    }

    int64_t n;
    Buffer<float> x;
    Buffer<float> mask;
    int64_t stride;
    Buffer<uint8_t> codes;
    Buffer<float> floats;
    bool wants_codes;
    Rows rows;
    Epilogue epilogue{};
  };

  template <class F>
  void for_cases(const F& check) {
    for (int64_t n = 1; n <= 200; ++n) {
      SCOPED_TRACE(::testing::Message() << n << " elements");
      Case c(*this, integer(1, 4), n > 100 ? integer(100, 900) : n);
      check(c);
      if (HasFatalFailure()) return;
    }
  }
};

TEST_P(RowsTest, Affine) {
  for_cases([&](const Case& c) {
    kernel().affine(c.rows, c.epilogue);
    c.check([&](int64_t r) {
      std::vector<float> y;
      for (int64_t i = 0; i < c.n; ++i) y.push_back(c.element(r, i));
      return y;
    });
  });
}

TEST_P(RowsTest, Softmax) {
  for_cases([&](const Case& c) {
    Buffer<float> scratch(c.n);
    kernel().softmax(c.rows, scratch.data(), c.epilogue);
    EXPECT_TRUE(scratch.zones_intact());
    c.check([&](int64_t r) {
      float most = -kInf;
      for (int64_t i = 0; i < c.n; ++i) most = std::max(most, c.element(r, i));
      std::vector<float> y;
      for (int64_t i = 0; i < c.n; ++i) y.push_back(exponential(c.element(r, i) - most));
      const float inverse = 1.0f / lane_sum(y);
      for (float& value : y) value *= inverse;
      return y;
    });
  });
}

// The kernel's exponential against the C library's, in double.
TEST_P(RowsTest, SoftmaxIsPrecise) {
  constexpr int64_t kElements = 4096;
  Buffer<float> x(2 * kElements);
  Buffer<float> y(2 * kElements);
  Buffer<float> scratch(2 * kElements);
  // e(0) = 1 in every second place, so that the others stand alone in a row of two.
  for (int64_t i = 0; i < kElements; ++i) {
    x[2 * i] = 0.0f;
    x[2 * i + 1] = real(-87.0f, 0.0f);
  }
  Epilogue epilogue{};
  epilogue.clamp_min = -kInf;
  epilogue.clamp_max = kInf;
  epilogue.out_stride = 2;
  epilogue.out_f32 = y.data();
  kernel().softmax({x.data(), kElements, 2, 1.0f, false, nullptr, 0}, scratch.data(), epilogue);
  for (int64_t i = 0; i < kElements; ++i) {
    const double e = std::exp(double{x[2 * i + 1]});
    const double expected = e / (1.0 + e);
    ASSERT_NEAR(y[2 * i + 1] / expected, 1.0, 3e-7) << x[2 * i + 1];
  }
}

TEST_P(RowsTest, LayerNorm) {
  for_cases([&](const Case& c) {
    Buffer<float> weight(c.n);
    Buffer<float> bias(c.n);
    for (float& value : weight) value = real(-2.0f, 2.0f);
    for (float& value : bias) value = real(-1.0f, 1.0f);
    const float eps = chance(0.5) ? 1e-5f : 1e-12f;
    kernel().layer_norm(c.x.data(), c.rows.rows, c.n, weight.data(), bias.data(), eps, c.epilogue);
    c.check([&](int64_t r) {
      const float* x = c.x.data() + r * c.n;
      const auto count = static_cast<float>(c.n);
      const float mean = lane_sum({x, x + c.n}) / count;
      std::vector<float> d;
      std::vector<float> squares;
      for (int64_t i = 0; i < c.n; ++i) {
        d.push_back(x[i] - mean);
        squares.push_back(d.back() * d.back());
      }
      const float factor = 1.0f / std::sqrt(lane_sum(squares) / count + eps);
      std::vector<float> y;
      for (int64_t i = 0; i < c.n; ++i) {
        const float normal = d[static_cast<size_t>(i)] * factor;
        const float scaled = normal * weight[i];
        y.push_back(scaled + bias[i]);
      }
      return y;
    });
  });
}

TEST_P(RowsTest, Quantize) {
  for (int64_t n = 1; n <= 200; ++n) {
    SCOPED_TRACE(::testing::Message() << n << " elements");
    const int64_t rows = integer(1, 4);
    const auto quant_max = static_cast<int32_t>(integer(1, 127));
    Buffer<float> x(rows * n, 4 * integer(0, 3));
    Buffer<uint8_t> codes(rows * n, integer(0, 3));
    Buffer<float> scales(rows);
    for (int64_t r = 0; r < rows; ++r) {
      constexpr float kSpecial[] = {kInf, -kInf, kNaN, 0.0f, -0.0f, 1e-45f};
      // Among them rows of zeros, of denormal numbers and of the largest.
      constexpr float kMost[] = {1.0f, 100.0f, 0.0f, 1e-40f, 3.4e38f};
      const float most = kMost[integer(0, 4)];
      const bool special = chance(0.3);
      for (int64_t i = 0; i < n; ++i) {
        x[r * n + i] = special && chance(0.1) ? kSpecial[integer(0, 5)] : most * real(-1.0f, 1.0f);
      }
    }
    kernel().quantize(x.data(), rows, n, quant_max, codes.data(), scales.data());
    for (int64_t r = 0; r < rows; ++r) {
      double largest = 0.0;
      bool has_nan = false;
      for (int64_t i = 0; i < n; ++i) {
        const float value = x[r * n + i];
        has_nan |= std::isnan(value);
        if (std::isfinite(value)) largest = std::max(largest, std::abs(double{value}));
      }
      const double exact = std::clamp(largest / quant_max, 0x1p-126, 0x1p126);
      const float scale = largest == 0.0 ? 1.0f : static_cast<float>(exact);
      ASSERT_TRUE(same(scales[r], has_nan ? kNaN : scale)) << "row " << r;
      const float inverse = 1.0f / scale;
      for (int64_t i = 0; i < n; ++i) {
        const float scaled = x[r * n + i] * inverse;
        const auto last = static_cast<float>(quant_max);
        const float q = std::isnan(scaled) ? 0.0f : std::clamp(std::nearbyint(scaled), -last, last);
        ASSERT_EQ(codes[r * n + i], static_cast<int>(q) + 128) << r << ", " << i;
      }
    }
    ASSERT_TRUE(codes.zones_intact() && scales.zones_intact());
  }
}

QATX_FOR_ALL_ROWS(RowsTest);

}  // namespace
}  // namespace qatx::kernels
