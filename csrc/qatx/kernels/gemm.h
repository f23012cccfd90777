#pragma once

#include <cstddef>
#include <cstdint>

#include "qatx/kernels/ceil_div.h"
#include "qatx/kernels/epilogue.h"
#include "qatx/kernels/grid.h"

namespace qatx::kernels {

// out[r][c] = epilogue(start[c] + sum over segments s and bytes i of input(r, s)[i] *
// weight[c][s][i]) Input codes are unsigned and weights signed 8-bit, full range on both sides; the
// sum is exact in int32 (the caller keeps segments * k small enough and puts -zero_point *
// sum(weight[c]) into start).
struct GemmArgs {
  Grid grid;
  int64_t k;           // bytes of a segment
  int64_t n;           // output columns
  const void* weight;  // packed by the same kernel, from this block on:
  int64_t first_block;
  const int32_t* start;  // [n rounded up to whole blocks]
  Epilogue epilogue;     // scale, bias: [n rounded up to whole blocks]; row 0 is the grid's first
};

struct GemmKernel {
  int64_t block;     // columns per block
  int64_t row_tile;  // rows that are computed together: what a task takes is best a multiple
  int64_t row_line;  // bytes; rows are read fastest where each begins with a multiple of these
  // Of the packed form of a block's weights, a multiple of 64. Those of all blocks, of which the
  // last is filled up, lie one after the other.
  int64_t (*block_bytes)(int64_t segments, int64_t k);
  // weight[n][segments][k]. `packed` is aligned to 64 bytes; every byte of it is written.
  void (*pack)(const int8_t* weight, int64_t n, int64_t segments, int64_t k, void* packed);
  // The reverse.
  void (*unpack)(const void* packed, int64_t n, int64_t segments, int64_t k, int8_t* weight);
  // Computes all rows of the column blocks [block_begin, block_end).
  void (*run)(const GemmArgs& args, int64_t block_begin, int64_t block_end);
};

namespace {

// Of the packed form of weight[n][segments][k].
inline size_t packed_bytes(const GemmKernel& kernel, int64_t n, int64_t segments, int64_t k) {
  return static_cast<size_t>(ceil_div(n, kernel.block) * kernel.block_bytes(segments, k));
}

}  // namespace

}  // namespace qatx::kernels
