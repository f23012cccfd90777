#include "qatx/kernels/pool.h"

#include <algorithm>

#include "layer_test.h"

namespace qatx::kernels {
namespace {

class PoolTest : public LayerTest {
 protected:
  const PoolKernels& kernel() const { return row().pool; }

  void check_max(const LayerShape& shape, int64_t row_begin, int64_t row_end) {
    const Input input(*this, shape, {});
    Buffer<uint8_t> out(shape.rows() * shape.channels, integer(0, 3));
    kernel().max(input.window(), shape.channels, out.data(), row_begin, row_end);
    for (int64_t r = 0; r < shape.rows(); ++r) {
      for (int64_t c = 0; c < shape.channels; ++c) {
        const int64_t i = r * shape.channels + c;
        if (r < row_begin || r >= row_end) {
          ASSERT_TRUE(out.untouched(i)) << r << ", " << c;
          continue;
        }
        int64_t best = 0;
        for (int64_t t = 0; t < shape.taps; ++t) {
          if (!input.is_padding(r, t)) best = std::max(best, input.code(r, t, c));
        }
        ASSERT_EQ(int64_t{out[i]}, best) << "row " << r << ", channel " << c << " of "
                                         << shape.channels << ", taps " << shape.taps;
      }
    }
    ASSERT_TRUE(out.zones_intact());
  }

  void check_average(LayerShape shape, LayerOptions options, int64_t row_begin, int64_t row_end) {
    SCOPED_TRACE(::testing::Message()
                 << "images " << shape.images << ", pixels " << shape.pixels << ", taps "
                 << shape.taps << ", channels " << shape.channels);
    options.residual = options.no_finite = false;
    shape.columns = shape.channels;
    const Input input(*this, shape, options);
    Output output(*this, shape, options, 1);
    const auto zero_point = static_cast<int32_t>(integer(0, 255));
    Buffer<float> multiplier(shape.pixels);
    for (float& value : multiplier) value = real(0.0f, 0.04f) / static_cast<float>(shape.taps);
    kernel().average(input.window(), shape.channels, zero_point, multiplier.data(),
                     output.epilogue(), row_begin, row_end);
    for (int64_t r = 0; r < shape.rows(); ++r) {
      for (int64_t c = 0; c < output.columns(r); ++c) {
        if (r < row_begin || r >= row_end || c >= shape.channels) {
          ASSERT_TRUE(output.is_untouched(r, c)) << r << ", " << c;
          continue;
        }
        int64_t sum = 0;
        for (int64_t t = 0; t < shape.taps; ++t) {
          if (!input.is_padding(r, t)) sum += input.code(r, t, c) - zero_point;
        }
        const float y =
            static_cast<float>(static_cast<int32_t>(sum)) * multiplier[r % shape.pixels];
        ASSERT_TRUE(output.is_output(r, c, y));
      }
    }
    ASSERT_TRUE(output.zones_intact());
  }
};

TEST_P(PoolTest, Max) {
  for (int64_t channels = 1; channels <= 140; ++channels) {
    const LayerShape shape{integer(1, 3), integer(1, 6), integer(1, 10), channels};
    const int64_t row_begin = integer(0, shape.rows() - 1);
    check_max(shape, row_begin, integer(row_begin, shape.rows()));
    if (HasFatalFailure()) return;
  }
}

TEST_P(PoolTest, Average) {
  for (int64_t channels = 1; channels <= 140; ++channels) {
    const LayerShape shape{integer(1, 3), integer(1, 6), integer(1, 50), channels};
    const int64_t row_begin = integer(0, shape.rows() - 1);
    check_average(shape, random_options(), row_begin, integer(row_begin, shape.rows()));
    if (HasFatalFailure()) return;
  }
}

TEST_P(PoolTest, AverageOfManyTaps) {
  // Around the number of codes whose sum fits 16 bits, and far beyond it.
  for (const int64_t taps : {255, 256, 257, 258, 512, 513, 3136}) {
    check_average({1, 2, taps, 37}, {.floats = true, .extremes = true}, 0, 2);
    check_average({1, 2, taps, 37}, {}, 0, 2);
    if (HasFatalFailure()) return;
  }
}

TEST_P(PoolTest, Interpolate) {
  for (int64_t channels = 1; channels <= 140; ++channels) {
    const int64_t pixels = integer(1, 4);
    const int64_t stride = channels + integer(0, 3);
    Buffer<uint8_t> image(30 * channels, integer(0, 63));
    for (uint8_t& code : image) code = static_cast<uint8_t>(integer(0, 255));
    const QParams q{0.05f, 1.0f / 0.05f, static_cast<int32_t>(integer(0, 255)), 0, 255};
    const auto interpolation = [&](int64_t most) {
      const float weight = chance(0.2) ? 0.0f : real(0.0f, 1.0f);
      return Interpolation{integer(0, most) * channels, integer(0, most) * channels, 1.0f - weight,
                           weight};
    };
    const Interpolation v = interpolation(14);
    std::vector<Interpolation> horizontal;
    for (int64_t i = 0; i < pixels; ++i) horizontal.push_back(interpolation(15));
    Buffer<uint8_t> codes(pixels * stride, integer(0, 63));
    Buffer<float> floats(pixels * stride, 4 * integer(0, 15));
    Epilogue epilogue{};
    epilogue.clamp_min = chance(0.5) ? 0.0f : -100.0f;
    epilogue.clamp_max = chance(0.5) ? 2.0f : 100.0f;
    epilogue.out_stride = stride;
    epilogue.out_u8 = codes.data();
    epilogue.out = {0.04f, 1.0f / 0.04f, 100, 3, 250};
    kernel().interpolate(image.data(), q, v, horizontal.data(), pixels, channels, epilogue);
    epilogue.out_u8 = nullptr;
    epilogue.out_f32 = floats.data();
    kernel().interpolate(image.data(), q, v, horizontal.data(), pixels, channels, epilogue);
    for (int64_t i = 0; i < pixels; ++i) {
      const Interpolation& h = horizontal[static_cast<size_t>(i)];
      for (int64_t c = 0; c < stride; ++c) {
        const int64_t at = i * stride + c;
        if (c >= channels) {
          ASSERT_TRUE(codes.untouched(at) && floats.untouched(at));
          continue;
        }
        const auto step = [&](int64_t row, int64_t column) {
          return static_cast<float>(int32_t{image[row + column + c]} - q.zero_point);
        };
        const auto mix = [&](int64_t row) {
          const float left = step(row, h.first) * h.first_weight;
          const float right = step(row, h.second) * h.second_weight;
          return left + right;
        };
        const float top = mix(v.first) * v.first_weight;
        const float bottom = mix(v.second) * v.second_weight;
        const float between = top + bottom;
        const float y = expected_clamp(between * q.scale, epilogue.clamp_min, epilogue.clamp_max);
        ASSERT_TRUE(same(floats[at], y)) << "pixel " << i << ", channel " << c;
        ASSERT_TRUE(same(codes[at], expected_code(y, epilogue.out)));
      }
    }
    ASSERT_TRUE(codes.zones_intact() && floats.zones_intact());
  }
}

QATX_FOR_ALL_ROWS(PoolTest);

}  // namespace
}  // namespace qatx::kernels
