#include "qatx/kernels/gemm.h"

#include <algorithm>
#include <memory>

#include "layer_test.h"

namespace qatx::kernels {
namespace {

class GemmTest : public LayerTest {
 protected:
  const GemmKernel& kernel() const { return row().gemm; }
  int64_t blocks(int64_t columns) const { return (columns + kernel().block - 1) / kernel().block; }

  // Pieces with lines of any length and distance, each in memory of its own that ends where it may
  // not be read any further.
  class Rows {
   public:
    Rows(GemmTest& test, const LayerShape& shape, const LayerOptions& options)
        : step_(options.step >= 0  ? options.step
                : test.chance(0.2) ? test.integer(0, 3)
                                   : shape.channels + test.integer(0, 3)) {
      std::vector<int64_t> widths;
      for (int64_t w = 1; w <= shape.rows(); ++w) {
        if (shape.rows() % w == 0) widths.push_back(w);
      }
      width_ =
          widths[static_cast<size_t>(test.integer(0, static_cast<int64_t>(widths.size()) - 1))];
      pitch_ = width_ + (test.chance(0.5) ? 0 : test.integer(1, 5));
      for (int64_t s = 0; s < shape.taps; ++s) {
        offsets_.push_back(test.integer(0, 13 * shape.channels));
      }
      const int64_t last = *std::max_element(offsets_.begin(), offsets_.end());
      for (int64_t lines = shape.rows() / width_; lines > 0;) {
        const int64_t some = test.integer(1, lines);
        const int64_t places = (some - 1) * pitch_ + width_;
        memory_.push_back(std::make_unique<GuardedBytes>(
            (places - 1) * step_ + last + shape.channels, kOverRead));
        for (uint8_t& code : *memory_.back()) {
          code = static_cast<uint8_t>(options.extremes ? 255 : test.integer(0, 255));
        }
        pieces_.push_back({memory_.back()->data(), some});
        for (int64_t row = 0; row < some * width_; ++row) {
          rows_.push_back(memory_.back()->data() + (row / width_ * pitch_ + row % width_) * step_);
        }
        lines -= some;
      }
    }

    Grid grid() const {
      return {pieces_.data(),
              static_cast<int64_t>(pieces_.size()),
              static_cast<int64_t>(rows_.size()),
              width_,
              pitch_,
              step_,
              offsets_.data(),
              static_cast<int64_t>(offsets_.size())};
    }
    int64_t code(int64_t row, int64_t segment, int64_t i) const {
      return rows_[static_cast<size_t>(row)][offsets_[static_cast<size_t>(segment)] + i];
    }

   private:
    int64_t step_;
    int64_t width_;
    int64_t pitch_;
    std::vector<int64_t> offsets_;
    std::vector<std::unique_ptr<GuardedBytes>> memory_;
    std::vector<Grid::Piece> pieces_;
    std::vector<const uint8_t*> rows_;
  };

  struct Part {
    int64_t block_begin;
    int64_t block_end;
  };

  // Runs the parts and checks the columns that they make up.
  void check(const LayerShape& shape, const LayerOptions& options, const std::vector<Part>& parts) {
    SCOPED_TRACE(::testing::Message() << "rows " << shape.rows() << ", segments " << shape.taps
                                      << ", k " << shape.channels << ", n " << shape.columns);
    const Rows rows(*this, shape, options);
    const int64_t k = shape.channels;
    const Buffer<int8_t> weight = random_weights(shape.columns * shape.taps * k, options);
    const int64_t block_bytes = kernel().block_bytes(shape.taps, k);
    ASSERT_EQ(block_bytes % 64, 0);
    const size_t bytes = packed_bytes(kernel(), shape.columns, shape.taps, k);
    Buffer<int8_t> packed(static_cast<int64_t>(bytes));
    kernel().pack(weight.data(), shape.columns, shape.taps, k, packed.data());
    ASSERT_TRUE(packed.zones_intact());
    Buffer<int8_t> unpacked(shape.columns * shape.taps * k, integer(0, 63));
    kernel().unpack(packed.data(), shape.columns, shape.taps, k, unpacked.data());
    ASSERT_TRUE(unpacked.zones_intact());
    ASSERT_TRUE(std::memcmp(weight.data(), unpacked.data(), static_cast<size_t>(unpacked.size())) ==
                0);

    Output output(*this, shape, options, kernel().block, rows.grid().width,
                  chance(0.7) ? 0 : integer(1, 40));
    for (const Part& part : parts) {
      // The weights of blocks that are not run need not be there.
      const int64_t first = integer(0, part.block_begin);
      const GemmArgs args{rows.grid(),
                          k,
                          shape.columns,
                          packed.data() + first * block_bytes,
                          first,
                          output.start(),
                          output.epilogue()};
      kernel().run(args, part.block_begin, part.block_end);
    }
    check_output(output, shape, 0, shape.rows(), parts.front().block_begin * kernel().block,
                 std::min(shape.columns, parts.back().block_end * kernel().block),
                 [&](int64_t r, int64_t c) {
                   int64_t sum = output.start(c);
                   for (int64_t s = 0; s < shape.taps; ++s) {
                     for (int64_t i = 0; i < k; ++i) {
                       sum += rows.code(r, s, i) * weight[(c * shape.taps + s) * k + i];
                     }
                   }
                   return sum;
                 });
  }

  void check(const LayerShape& shape, const LayerOptions& options) {
    check(shape, options, {{0, blocks(shape.columns)}});
  }
};

TEST_P(GemmTest, AnyNumberOfColumns) {
  for (int64_t n = 1; n <= 130; ++n) {
    check({1, 3, 2, 9, n}, {.floats = n % 3 == 0, .residual = n % 2 == 0});
    if (HasFatalFailure()) return;
  }
}

TEST_P(GemmTest, AnyNumberOfBytes) {
  for (int64_t k = 1; k <= 140; ++k) {
    check({1, 2, 3, k, 17}, {.floats = k % 2 == 0});
    if (HasFatalFailure()) return;
  }
}

TEST_P(GemmTest, AnyNumberOfRows) {
  for (int64_t rows = 1; rows <= 70; ++rows) {
    for (const int64_t n : {10, 16, 32, 48, 64, 70}) {
      check({1, rows, 1, 12, n}, {.no_start = rows % 2 == 0});
      check({rows, 1, 1, 5, n}, {.floats = true});
      if (HasFatalFailure()) return;
    }
  }
}

TEST_P(GemmTest, SeveralSegments) {
  for (const int64_t taps : {1, 9, 25}) {
    for (const int64_t k : {1, 3, 4, 16, 33}) {
      check({3, 7, taps, k, 20}, random_options());
      if (HasFatalFailure()) return;
    }
  }
}

// A block's weights do not fit the first cache; segments may be taps that lie side by side.
TEST_P(GemmTest, LargeWeights) {
  for (const int64_t k : {128, 192, 384, 640, 768, 832, 1536, 3000}) {
    for (const int64_t taps : {1, 2, 3}) {
      const int64_t segments = k < 800 ? 12 / taps : taps;
      LayerOptions options = random_options();
      options.step = k % taps == 0 ? k / taps : k;
      check({integer(1, 3), integer(1, 60), segments, k, integer(1, 70)}, options);
      if (HasFatalFailure()) return;
    }
  }
}

TEST_P(GemmTest, LargestProductsDoNotSaturate) {
  for (int i = 0; i < 8; ++i) {
    check({1, 5, 9, 64, 40}, {.floats = true, .extremes = true});
    if (HasFatalFailure()) return;
  }
}

TEST_P(GemmTest, ResultsOutsideOfInt32AreClamped) {
  check({2, 8, 1, 6, 77}, {.huge = true});
  check({2, 8, 1, 6, 77}, {.residual = true, .clamp = true, .huge = true});
}

TEST_P(GemmTest, NanBecomesTheZeroPoint) {
  check({2, 8, 1, 6, 77}, {.no_finite = true});
  check({2, 8, 1, 6, 77}, {.residual = true, .clamp = true, .no_finite = true});
  check({2, 8, 1, 6, 77}, {.floats = true, .clamp = true, .no_finite = true});
}

TEST_P(GemmTest, RandomLayers) {
  constexpr int64_t kTaps[] = {1, 1, 2, 9, 9, 25};
  for (int i = 0; i < 150; ++i) {
    check({integer(1, 4), integer(1, 9), kTaps[integer(0, 5)], integer(1, 70), integer(1, 130)},
          random_options());
    if (HasFatalFailure()) return;
  }
}

TEST_P(GemmTest, PartsOfTheBlocks) {
  for (int i = 0; i < 40; ++i) {
    const LayerShape shape{integer(1, 3), integer(2, 12), integer(1, 3), integer(1, 9),
                           integer(1, 200)};
    const int64_t begin = integer(0, blocks(shape.columns) - 1);
    const int64_t end = integer(begin + 1, blocks(shape.columns));
    const int64_t middle = integer(begin, end);
    check(shape, random_options(), {{begin, middle}, {middle, end}});
    if (HasFatalFailure()) return;
  }
}

QATX_FOR_ALL_ROWS(GemmTest);

}  // namespace
}  // namespace qatx::kernels
