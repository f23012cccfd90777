#include "qatx/kernels/depthwise.h"

#include "layer_test.h"

namespace qatx::kernels {
namespace {

class DepthwiseTest : public LayerTest {
 protected:
  const DepthwiseKernel& kernel() const { return row().depthwise; }

  // Runs [row_begin, row_middle) and [row_middle, row_end).
  void check(LayerShape shape, const LayerOptions& options, int64_t row_begin, int64_t row_middle,
             int64_t row_end) {
    SCOPED_TRACE(::testing::Message()
                 << "images " << shape.images << ", pixels " << shape.pixels << ", taps "
                 << shape.taps << ", channels " << shape.channels);
    shape.columns = shape.channels;
    const Input input(*this, shape, options);
    const Buffer<int8_t> weight = random_weights(shape.channels * shape.taps, options);
    const size_t bytes = kernel().packed_bytes(shape.channels, shape.taps);
    ASSERT_EQ(bytes % 64, 0u);
    Buffer<int8_t> packed(static_cast<int64_t>(bytes));
    kernel().pack(weight.data(), shape.channels, shape.taps, packed.data());
    ASSERT_TRUE(packed.zones_intact());
    Buffer<int8_t> unpacked(shape.channels * shape.taps, integer(0, 63));
    kernel().unpack(packed.data(), shape.channels, shape.taps, unpacked.data());
    ASSERT_TRUE(unpacked.zones_intact());
    ASSERT_TRUE(std::memcmp(weight.data(), unpacked.data(), static_cast<size_t>(unpacked.size())) ==
                0);

    LayerShape sums = shape;  // of one channel each
    sums.channels = 1;
    Output output(*this, sums, options, kernel().block);
    const DepthwiseArgs args{input.window(), shape.channels, packed.data(), output.start(),
                             output.epilogue()};
    kernel().run(args, row_begin, row_middle);
    kernel().run(args, row_middle, row_end);
    check_output(output, shape, row_begin, row_end, 0, shape.channels, [&](int64_t r, int64_t c) {
      int64_t sum = output.start(c);
      for (int64_t t = 0; t < shape.taps; ++t) {
        sum += input.code(r, t, c) * weight[c * shape.taps + t];
      }
      return sum;
    });
  }

  void check(const LayerShape& shape, const LayerOptions& options) {
    check(shape, options, 0, shape.rows(), shape.rows());
  }
};

TEST_P(DepthwiseTest, AnyNumberOfChannels) {
  for (int64_t channels = 1; channels <= 200; ++channels) {
    check({1, 6, 9, channels}, {.floats = channels % 2 == 0, .residual = channels % 3 == 0});
    if (HasFatalFailure()) return;
  }
}

TEST_P(DepthwiseTest, AnyNumberOfTaps) {
  for (int64_t taps = 1; taps <= 26; ++taps) {
    for (const int64_t channels : {5, 16, 32, 64}) {
      check({2, 3, taps, channels}, random_options());
      if (HasFatalFailure()) return;
    }
  }
}

TEST_P(DepthwiseTest, AnyNumberOfRows) {
  for (int64_t rows = 1; rows <= 20; ++rows) {
    for (const int64_t channels : {8, 16, 24, 32, 48, 64, 80}) {
      check({1, rows, 9, channels}, random_options());
      check({rows, 1, 4, channels}, random_options());
      if (HasFatalFailure()) return;
    }
  }
}

TEST_P(DepthwiseTest, LargestProductsDoNotSaturate) {
  for (int i = 0; i < 8; ++i) {
    check({1, 5, 25, 70}, {.floats = true, .extremes = true});
    if (HasFatalFailure()) return;
  }
}

TEST_P(DepthwiseTest, ResultsOutsideOfInt32AreClamped) {
  for (const int64_t channels : {13, 30, 77}) {
    check({2, 8, 9, channels}, {.huge = true});
    check({2, 8, 9, channels}, {.residual = true, .clamp = true, .huge = true});
  }
}

TEST_P(DepthwiseTest, NanBecomesTheZeroPoint) {
  for (const int64_t channels : {13, 30, 77}) {
    check({2, 8, 9, channels}, {.no_finite = true});
    check({2, 8, 9, channels}, {.residual = true, .clamp = true, .no_finite = true});
    check({2, 8, 9, channels}, {.floats = true, .clamp = true, .no_finite = true});
  }
}

TEST_P(DepthwiseTest, PartsOfTheRows) {
  for (int i = 0; i < 100; ++i) {
    const LayerShape shape{integer(1, 3), integer(2, 12), integer(1, 9), integer(1, 130)};
    const int64_t row_begin = integer(0, shape.rows() - 1);
    const int64_t row_end = integer(row_begin + 1, shape.rows());
    check(shape, random_options(), row_begin, integer(row_begin, row_end), row_end);
    if (HasFatalFailure()) return;
  }
}

QATX_FOR_ALL_ROWS(DepthwiseTest);

}  // namespace
}  // namespace qatx::kernels
