#include "qatx/engine/operators/gemm_input.h"

#include <gtest/gtest.h>

#include <random>

namespace qatx::engine {
namespace {

constexpr uint8_t kPadding = 137;

// Compares every byte of every segment of every row with the definition of a window.
class GemmInputTest : public ::testing::Test {
 protected:
  int64_t integer(int64_t least, int64_t most) {
    return std::uniform_int_distribution<int64_t>(least, most)(random_);
  }
  bool chance() { return integer(0, 1) == 1; }

  Axis random_axis(int64_t largest) {
    Axis axis;
    axis.stride = integer(1, 3);
    axis.size = integer(1, largest);
    const int64_t kernel = integer(1, 4);
    const int64_t dilation = integer(1, 3);
    // Taps of a transposed convolution may also begin inside.
    const int64_t first = chance() ? 0 : integer(-4, 3);
    axis.taps.clear();
    for (int64_t k = 0; k < kernel; ++k) axis.taps.push_back(first + k * dilation);
    axis.output = integer(1, largest);
    return axis;
  }

  // Calls the parts of some lines, and checks those.
  void check(const std::array<Axis, 3>& axes, int64_t images, int64_t channels, int64_t groups,
             bool join) {
    const auto& [depth, height, width] = axes;
    ::testing::Message text;
    for (const Axis& axis : axes) {
      text << axis.size << " to " << axis.output << ", stride " << axis.stride << "; ";
    }
    SCOPED_TRACE(text << images << " images, " << channels << " channels, " << groups << " groups");
    std::vector<uint8_t> codes(
        static_cast<size_t>(images * depth.size * height.size * width.size * channels));
    for (uint8_t& code : codes) code = static_cast<uint8_t>(random_());
    const int64_t together = taps_together(width.taps, width.stride, channels, groups);
    GemmInput input("test", axes, images, channels, together, kPadding);
    if (join) input.join_lines();
    const int64_t rows = images * depth.output * height.output * width.output;
    ASSERT_EQ(input.lines() * input.width(), rows);

    const int64_t begin = integer(0, input.lines() - 1);
    const int64_t end = integer(begin + 1, input.lines());
    const int64_t bytes = channels / groups * together;
    int64_t next = begin * input.width();
    input.for_each_part(codes.data(), begin, end, [&](const kernels::Grid& grid, int64_t first) {
      ASSERT_EQ(first, next);
      next += grid.rows;
      int64_t row = first;
      for (int64_t p = 0; p < grid.piece_count; ++p) {
        for (int64_t line = 0; line < grid.pieces[p].lines; ++line) {
          for (int64_t x = 0; x < grid.width; ++x, ++row) {
            const uint8_t* at = grid.pieces[p].input + (line * grid.pitch + x) * grid.step;
            ASSERT_NO_FATAL_FAILURE(check_row(axes, codes, channels, row, at, grid, bytes));
          }
        }
      }
      ASSERT_EQ(row, next);
    });
    ASSERT_EQ(next, end * input.width());
  }

 private:
  static void check_row(const std::array<Axis, 3>& axes, const std::vector<uint8_t>& codes,
                        int64_t channels, int64_t row, const uint8_t* at, const kernels::Grid& grid,
                        int64_t bytes) {
    const auto& [depth, height, width] = axes;
    const int64_t x = row % width.output;
    const int64_t y = row / width.output % height.output;
    const int64_t z = row / width.output / height.output % depth.output;
    const int64_t image = row / width.output / height.output / depth.output;
    int64_t segment = 0;
    int64_t inside_segment = 0;
    for (const int64_t d : depth.taps) {
      for (const int64_t h : height.taps) {
        for (const int64_t w : width.taps) {
          const int64_t from[] = {z * depth.stride + d, y * height.stride + h,
                                  x * width.stride + w};
          bool inside = true;
          for (size_t i = 0; i < 3; ++i) inside &= from[i] >= 0 && from[i] < axes[i].size;
          const int64_t pixel =
              ((image * depth.size + from[0]) * height.size + from[1]) * width.size + from[2];
          // Of groups, the first one's channels stand for all.
          const int64_t of_tap = std::min(channels, bytes);
          for (int64_t c = 0; c < of_tap; ++c) {
            const uint8_t expected =
                inside ? codes[static_cast<size_t>(pixel * channels + c)] : kPadding;
            ASSERT_EQ(at[grid.offsets[segment] + inside_segment + c], expected)
                << "row " << row << ", tap " << d << ", " << h << ", " << w << ", channel " << c;
          }
          inside_segment += of_tap;
          if (inside_segment == bytes) {
            ++segment;
            inside_segment = 0;
          }
        }
      }
    }
    ASSERT_EQ(segment, grid.segments);
  }

  std::mt19937 random_{20261126};
};

TEST_F(GemmInputTest, WindowsOfImages) {
  for (int i = 0; i < 300; ++i) {
    const int64_t channels = chance() ? integer(1, 9) : integer(62, 66);
    const int64_t groups = channels % 2 == 0 && chance() ? 2 : 1;
    check({Axis{}, random_axis(9), random_axis(9)}, integer(1, 3), channels, groups, chance());
    if (HasFatalFailure()) return;
  }
}

TEST_F(GemmInputTest, WindowsOfVolumes) {
  for (int i = 0; i < 100; ++i) {
    check({random_axis(5), random_axis(5), random_axis(5)}, integer(1, 2), integer(1, 5), 1,
          chance());
    if (HasFatalFailure()) return;
  }
}

// A part is half a MiB.
TEST_F(GemmInputTest, ImagesThatTakeSeveralParts) {
  const Axis one{80, 80, 1, {0}};
  const Axis padded{80, 80, 1, {-1, 0, 1}};
  const Axis strided{80, 40, 2, {-1, 0, 1}};
  for (const Axis& axis : {one, padded, strided}) {
    for (const int64_t channels : {40, 160}) {
      check({Axis{}, axis, axis}, 2, channels, 1, true);
      if (HasFatalFailure()) return;
    }
  }
}

TEST_F(GemmInputTest, SmallImagesShareAPart) {
  const Axis padded{7, 7, 1, {-1, 0, 1}};
  check({Axis{}, padded, padded}, 40, 256, 1, false);
}

TEST_F(GemmInputTest, RowsOfALinearLayer) {
  std::vector<uint8_t> codes(3000 * 300);
  for (size_t i = 0; i < codes.size(); ++i) codes[i] = static_cast<uint8_t>(i * 7 + i / 300);
  const GemmInput input(3000, 300);
  int64_t next = 11;
  input.for_each_part(codes.data(), 11, 2900, [&](const kernels::Grid& grid, int64_t first) {
    ASSERT_EQ(first, next);
    ASSERT_EQ(grid.piece_count, 1);
    ASSERT_EQ(grid.pieces[0].input, codes.data() + first * 300);
    ASSERT_EQ(grid.step * grid.pitch, 300);
    next += grid.rows;
  });
  ASSERT_EQ(next, 2900);
}

TEST_F(GemmInputTest, PaddingThatNoMemoryHolds) {
  const Axis far{1 << 20, 1 << 20, 1, {-(1 << 20), 0}};
  try {
    const GemmInput input("far", {Axis{}, far, far}, 1, 65536, 1, 0);
    FAIL();
  } catch (const std::exception& error) {
    EXPECT_NE(std::string(error.what()).find("'far'"), std::string::npos) << error.what();
  }
}

}  // namespace
}  // namespace qatx::engine
