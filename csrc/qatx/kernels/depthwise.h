#pragma once

#include <cstddef>
#include <cstdint>

#include "qatx/kernels/epilogue.h"
#include "qatx/kernels/window.h"

namespace qatx::kernels {

// out[r][c] = epilogue(start[c] + sum over taps t of input(r, t)[c] * weight[c][t])
struct DepthwiseArgs {
  Window window;
  int64_t channels;
  const void* weight;    // packed by the same kernel
  const int32_t* start;  // [channels rounded up to whole blocks]
  Epilogue epilogue;     // scale, bias: [channels rounded up to whole blocks]
};

struct DepthwiseKernel {
  int64_t block;  // channels per block
  // Bytes of the packed form of weight[channels][taps], a multiple of 64.
  size_t (*packed_bytes)(int64_t channels, int64_t taps);
  // `packed` is aligned to 64 bytes; every byte of it is written.
  void (*pack)(const int8_t* weight, int64_t channels, int64_t taps, void* packed);
  // The reverse.
  void (*unpack)(const void* packed, int64_t channels, int64_t taps, int8_t* weight);
  void (*run)(const DepthwiseArgs& args, int64_t row_begin, int64_t row_end);
};

}  // namespace qatx::kernels
