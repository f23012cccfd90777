#pragma once

#include "qatx/kernels/grid.h"

namespace qatx::kernels {
namespace {  // compiled for several instruction sets: nothing here may be shared between them

// Walks over the rows of a grid.
class GridCursor {
 public:
  explicit GridCursor(const Grid& grid)
      : grid_(grid), piece_(grid.pieces), row_(piece_->input), rows_(grid.width) {}

  // Where the first segment of the row would begin, were its offset zero.
  const uint8_t* row() const { return row_; }

  void advance() {
    row_ += grid_.step;
    if (--rows_ > 0) return;
    rows_ = grid_.width;
    row_ += (grid_.pitch - grid_.width) * grid_.step;
    if (++line_ < piece_->lines) return;
    line_ = 0;
    if (++piece_ < grid_.pieces + grid_.piece_count) row_ = piece_->input;
  }

 private:
  const Grid& grid_;
  const Grid::Piece* piece_;
  const uint8_t* row_;
  int64_t rows_;  // left in the line
  int64_t line_ = 0;
};

}  // namespace
}  // namespace qatx::kernels
