#pragma once

#include <cstdint>

#include "qatx/kernels/amx/tiles.h"
#include "qatx/kernels/ceil_div.h"
#include "qatx/kernels/grid.h"

namespace qatx::kernels::amx {
namespace {

constexpr int64_t kPairRows = 2 * kTileRows;
// Of the sums of a row. In memory they are those of one tile after the other.
constexpr int kVectors = 2;

// Rows of a pair of tiles that are rows of the output.
struct PairRows {
  struct Row {
    int64_t sums;  // where its first vector stands among those of the pair
    int64_t row;
    int64_t out;  // where it begins in the output
  };

  int64_t count = 0;
  Row rows[kPairRows];
};

// The places of a piece in pairs of tiles: its rows, and what lies between its lines. A tile that
// would reach beyond the last place begins earlier: some of its rows are computed twice. Where
// there are fewer places than a tile has rows, its rows are fewer too.
class Pairs {
 public:
  // `row` is the piece's first.
  Pairs(const Grid& grid, const Epilogue& epilogue, const Grid::Piece& piece, int64_t row)
      : places_((piece.lines - 1) * grid.pitch + grid.width),
        last_tile_(places_ > kTileRows ? places_ - kTileRows : 0),
        width_(follow(grid, epilogue) ? places_ : grid.width),
        pitch_(follow(grid, epilogue) ? places_ : grid.pitch),
        row_(row),
        out_(out_offset(epilogue, grid, row)),
        out_stride_(epilogue.out_stride),
        out_line_(width_ * out_stride_ + epilogue.out_gap),
        input_(piece.input),
        step_(grid.step) {}

  int64_t count() const { return ceil_div(places_, kPairRows); }
  int64_t tile_rows() const { return places_ < kTileRows ? places_ : kTileRows; }
  bool has_lower(int64_t pair) const { return places_ - pair * kPairRows > kTileRows; }
  const uint8_t* upper(int64_t pair) const { return input_ + begin(pair * kPairRows) * step_; }
  const uint8_t* lower(int64_t pair) const {
    return input_ + begin(pair * kPairRows + kTileRows) * step_;
  }

  void list(int64_t pair, PairRows& rows) const {
    const int64_t first = pair * kPairRows;
    const int64_t end = places_ - first < kPairRows ? places_ : first + kPairRows;
    // By how much the tiles begin earlier; the sums of the upper one's other columns lie between.
    const int64_t upper = first - begin(first);
    const int64_t lower = first + kTileRows - begin(first + kTileRows) + (kVectors - 1) * kTileRows;
    rows.count = 0;
    for (int64_t line = first / pitch_; line * pitch_ < end; ++line) {
      const int64_t line_begin = line * pitch_;
      const int64_t line_end = line_begin + width_;
      const int64_t to = line_end < end ? line_end : end;
      for (int64_t place = line_begin < first ? first : line_begin; place < to; ++place) {
        const int64_t in_pair = place - first;
        const int64_t x = place - line_begin;
        rows.rows[rows.count++] = {in_pair + (in_pair < kTileRows ? upper : lower),
                                   row_ + line * width_ + x,
                                   out_ + line * out_line_ + x * out_stride_};
      }
    }
  }

 private:
  // Whether all rows do one another, in the input and in the output.
  static bool follow(const Grid& grid, const Epilogue& epilogue) {
    return grid.width == grid.pitch && epilogue.out_gap == 0;
  }

  // Of the tile of a place.
  int64_t begin(int64_t place) const { return place < last_tile_ ? place : last_tile_; }

  int64_t places_;
  int64_t last_tile_;
  int64_t width_;  // of a line
  int64_t pitch_;  // of a line and what lies behind it
  int64_t row_;
  int64_t out_;         // where that is in the output
  int64_t out_stride_;  // from there to the next,
  int64_t out_line_;    // and to the first of the next line
  const uint8_t* input_;
  int64_t step_;
};

}  // namespace
}  // namespace qatx::kernels::amx
