#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "qatx/kernels/grid.h"

namespace qatx::engine {

// A window along one dimension: output o sees the inputs o * stride + taps[...]; what lies outside
// [0, size) is padding.
struct Axis {
  int64_t size = 1;
  int64_t output = 1;
  int64_t stride = 1;
  std::vector<int64_t> taps = {0};  // ascending
};

// How far apart rows of so many bytes are best read by the kernel in use: a little more than that
// may be faster.
int64_t best_pitch_of(int64_t bytes);

// How many taps of a horizontal axis make a segment: all where they lie side by side in memory,
// else one, as also where pixels are better read a little apart.
int64_t taps_together(const std::vector<int64_t>& taps, int64_t stride, int64_t channels,
                      int64_t groups);

// Where a matrix product finds its rows: in the input itself or, where padding or a vertical stride
// is in the way, in copies of some lines of it with their padding around them. Immutable.
class GemmInput {
 public:
  using Use = std::function<void(const kernels::Grid& grid, int64_t first_row)>;

  // `rows` rows of `bytes` bytes, one after the other; each is a line.
  GemmInput(int64_t rows, int64_t bytes);
  // Windows over images [images][depth][height][width][channels]: a line of output pixels is one of
  // rows. A segment has all channels of so many taps `together`. Throws c10::Error where a line and
  // its padding are too large. Of what need not be copied, `channels` may be what lies between
  // pixels, too.
  GemmInput(const std::string& name, std::array<Axis, 3> axes, int64_t images, int64_t channels,
            int64_t together, uint8_t padding);

  // Makes each row a line, where the rows of all lines follow one another in the input.
  void join_lines();

  bool copies() const { return copies_; }
  int64_t lines() const { return planes_ * lines_; }
  int64_t width() const { return width_; }

  // Calls use() for all rows of the lines [begin, end), in parts that stay in the second cache.
  void for_each_part(const uint8_t* input, int64_t begin, int64_t end, const Use& use) const;

 private:
  void plan_copies(const std::string& name);
  // Where a tap lies in a copy, counted from the copy's begin.
  int64_t copied_offset(int64_t depth_tap, int64_t height_tap, int64_t width_tap) const;
  // The lines from `line` of a plane on, copied to `copy` if need be.
  const uint8_t* find(const uint8_t* input, int64_t plane, int64_t line, int64_t lines,
                      uint8_t* copy) const;
  // `from`: where the line begins in an image; nullptr in the padding above or below.
  void copy_line(const uint8_t* from, int64_t column_phase, uint8_t* to) const;

  bool copies_ = false;
  int64_t planes_ = 1;  // of output pixels
  int64_t lines_;       // of a plane
  int64_t width_ = 1;
  int64_t pitch_ = 1;
  int64_t step_ = 1;
  std::vector<int64_t> offsets_{0};
  int64_t piece_lines_ = 1;  // at most, in one piece
  int64_t piece_bytes_ = 0;
  int64_t pieces_ = 1;  // at most, at once

  std::array<Axis, 3> axes_;
  int64_t channels_ = 1;
  uint8_t padding_ = 0;
  // Copies are blocks of lines: by depth tap, by phase of the vertical stride and by phase of the
  // horizontal one, where that splits lines; else lines are as they are, with their padding.
  std::vector<int64_t> line_phases_;
  std::vector<int64_t> column_phases_;
  int64_t block_lines_ = 0;
  int64_t more_lines_ = 0;  // that the last output line needs behind its first
  int64_t line_bytes_ = 0;
  bool split_ = false;
  // Of lines that are not split, in bytes.
  int64_t left_ = 0;      // padding before
  int64_t source_ = 0;    // where what is copied begins in the image
  int64_t copied_ = 0;    // how much that is
  int64_t overflow_ = 0;  // how far a window reaches into the padding of the next line
};

}  // namespace qatx::engine
