#pragma once

#include <cstdint>

#include "qatx/kernels/epilogue.h"

namespace qatx::kernels {

// Where a matrix product finds its input. Each of its rows (an output pixel of a convolution) is
// `segments` runs of the same number of bytes: the taps of a window that lie side by side make one.
// Rows follow one another in lines (of the output image), all equally far apart, also from the end
// of a line to the next one's begin if the steps between them are counted:
//   row x of line l of a piece, segment s: piece.input + (l * pitch + x) * step + offsets[s]
// So windows that reach over the edge of an image need one with its padding around it in memory.
// Kernels may read up to kOverRead bytes behind the end of a segment: buffers are that much longer,
// and what is read there is multiplied by zero. They may also read the rows between two lines.
struct Grid {
  // Lines that are one in memory; the next piece's follow in the output.
  struct Piece {
    const uint8_t* input;
    int64_t lines;
  };

  const Piece* pieces;
  int64_t piece_count;
  int64_t rows;   // in all pieces
  int64_t width;  // rows of a line
  int64_t pitch;  // steps from a line to the next
  int64_t step;   // bytes from a row to the next
  const int64_t* offsets;
  int64_t segments;
};

namespace {

// Where a row of a product begins in the output, in elements.
inline int64_t out_offset(const Epilogue& epilogue, const Grid& grid, int64_t row) {
  const int64_t gaps = epilogue.out_gap == 0 ? 0 : row / grid.width;
  return row * epilogue.out_stride + gaps * epilogue.out_gap;
}

}  // namespace

}  // namespace qatx::kernels
