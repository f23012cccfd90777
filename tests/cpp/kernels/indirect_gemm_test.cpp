#include "qatx/kernels/indirect_gemm.h"

#include "layer_test.h"

namespace qatx::kernels {
namespace {

class IndirectGemmTest : public LayerTest {
 protected:
  const GemmKernel& kernel() const { return row().gemm; }
  int64_t blocks(int64_t columns) const { return (columns + kernel().block - 1) / kernel().block; }

  struct Part {
    int64_t row_begin;
    int64_t row_end;
    int64_t block_begin;
    int64_t block_end;
  };

  // Runs the parts and checks the rectangle that they make up.
  void check(const LayerShape& shape, const LayerOptions& options, const std::vector<Part>& parts) {
    SCOPED_TRACE(::testing::Message()
                 << "images " << shape.images << ", pixels " << shape.pixels << ", taps "
                 << shape.taps << ", k " << shape.channels << ", n " << shape.columns);
    const Input input(*this, shape, options);
    const int64_t k = shape.channels;
    const Buffer<int8_t> weight = random_weights(shape.columns * shape.taps * k, options);
    const size_t bytes = kernel().packed_bytes(shape.columns, shape.taps, k);
    ASSERT_EQ(bytes % 64, 0u);
    Buffer<int8_t> packed(static_cast<int64_t>(bytes));
    kernel().pack(weight.data(), shape.columns, shape.taps, k, packed.data());
    ASSERT_TRUE(packed.zones_intact());

    Output output(*this, shape, options, kernel().block);
    const GemmArgs args{input.window(),   k, shape.columns, packed.data(), output.start(),
                        output.epilogue()};
    for (const Part& part : parts) {
      kernel().run(args, part.row_begin, part.row_end, part.block_begin, part.block_end);
    }
    check_output(output, shape, parts.front().row_begin, parts.back().row_end,
                 parts.front().block_begin * kernel().block,
                 std::min(shape.columns, parts.back().block_end * kernel().block),
                 [&](int64_t r, int64_t c) {
                   int64_t sum = output.start(c);
                   for (int64_t t = 0; t < shape.taps; ++t) {
                     for (int64_t i = 0; i < k; ++i) {
                       sum += input.code(r, t, i) * weight[(c * shape.taps + t) * k + i];
                     }
                   }
                   return sum;
                 });
  }

  void check(const LayerShape& shape, const LayerOptions& options) {
    check(shape, options, {{0, shape.rows(), 0, blocks(shape.columns)}});
  }
};

TEST_P(IndirectGemmTest, AnyNumberOfColumns) {
  for (int64_t n = 1; n <= 130; ++n) {
    check({1, 3, 2, 9, n}, {.floats = n % 3 == 0, .residual = n % 2 == 0});
    if (HasFatalFailure()) return;
  }
}

TEST_P(IndirectGemmTest, AnyNumberOfInputChannels) {
  for (int64_t k = 1; k <= 70; ++k) {
    check({1, 2, 3, k, 17}, {.floats = k % 2 == 0});
    if (HasFatalFailure()) return;
  }
}

TEST_P(IndirectGemmTest, AnyNumberOfRows) {
  for (int64_t rows = 1; rows <= 20; ++rows) {
    for (const int64_t n : {10, 16, 32, 48, 64, 70}) {
      check({1, rows, 1, 12, n}, {});
      check({rows, 1, 1, 5, n}, {.floats = true});
      if (HasFatalFailure()) return;
    }
  }
}

TEST_P(IndirectGemmTest, WindowsWithPadding) {
  for (const int64_t taps : {1, 9, 25}) {
    for (const int64_t k : {1, 3, 4, 16, 33}) {
      check({3, 7, taps, k, 20}, random_options());
      if (HasFatalFailure()) return;
    }
  }
}

TEST_P(IndirectGemmTest, LargestProductsDoNotSaturate) {
  for (int i = 0; i < 8; ++i) {
    check({1, 5, 9, 64, 40}, {.floats = true, .extremes = true});
    if (HasFatalFailure()) return;
  }
}

TEST_P(IndirectGemmTest, NanBecomesTheZeroPoint) {
  check({2, 8, 1, 6, 77}, {.no_finite = true});
  check({2, 8, 1, 6, 77}, {.residual = true, .clamp = true, .no_finite = true});
  check({2, 8, 1, 6, 77}, {.floats = true, .clamp = true, .no_finite = true});
}

TEST_P(IndirectGemmTest, RandomLayers) {
  constexpr int64_t kTaps[] = {1, 1, 2, 9, 9, 25};
  for (int i = 0; i < 150; ++i) {
    check({integer(1, 4), integer(1, 9), kTaps[integer(0, 5)], integer(1, 70), integer(1, 130)},
          random_options());
    if (HasFatalFailure()) return;
  }
}

TEST_P(IndirectGemmTest, PartsOfTheRowsAndBlocks) {
  for (int i = 0; i < 40; ++i) {
    const LayerShape shape{integer(1, 3), integer(2, 12), integer(1, 3), integer(1, 9),
                           integer(1, 200)};
    const int64_t row_begin = integer(0, shape.rows() - 1);
    const int64_t row_end = integer(row_begin + 1, shape.rows());
    const int64_t row_middle = integer(row_begin, row_end);
    const int64_t block_begin = integer(0, blocks(shape.columns) - 1);
    const int64_t block_end = integer(block_begin + 1, blocks(shape.columns));
    const int64_t block_middle = integer(block_begin, block_end);
    check(shape, random_options(),
          {{row_begin, row_middle, block_begin, block_middle},
           {row_begin, row_middle, block_middle, block_end},
           {row_middle, row_end, block_begin, block_middle},
           {row_middle, row_end, block_middle, block_end}});
    if (HasFatalFailure()) return;
  }
}

QATX_FOR_ALL_ROWS(IndirectGemmTest);

}  // namespace
}  // namespace qatx::kernels
