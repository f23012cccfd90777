#pragma once

#include <cstddef>
#include <cstdint>

#include "qatx/kernels/epilogue.h"
#include "qatx/kernels/window.h"

namespace qatx::kernels {

// out[r][c] = epilogue(start[c] + sum over taps t and channels i of input(r, t)[i] *
// weight[c][t][i]) Input codes are unsigned and weights signed 8-bit, full range on both sides; the
// sum is exact in int32 (the caller keeps taps * k small enough and puts -zero_point *
// sum(weight[c]) into start).
struct GemmArgs {
  Window window;
  int64_t k;             // input channels per tap
  int64_t n;             // output columns
  const void* weight;    // packed by the same kernel
  const int32_t* start;  // [n rounded up to whole blocks]
  Epilogue epilogue;     // scale, bias: [n rounded up to whole blocks]
};

struct GemmKernel {
  int64_t block;     // columns per block
  int64_t row_tile;  // rows that are computed together: what a task takes is best a multiple
  // Bytes of the packed form of weight[n][taps][k], a multiple of 64.
  size_t (*packed_bytes)(int64_t n, int64_t taps, int64_t k);
  // `packed` is aligned to 64 bytes; every byte of it is written.
  void (*pack)(const int8_t* weight, int64_t n, int64_t taps, int64_t k, void* packed);
  // Computes rows [row_begin, row_end) of the column blocks [block_begin, block_end).
  void (*run)(const GemmArgs& args, int64_t row_begin, int64_t row_end, int64_t block_begin,
              int64_t block_end);
};

}  // namespace qatx::kernels
