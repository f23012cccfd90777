#include "qatx/kernels/gemm.h"

#include "qatx/kernels/avx2/epilogue.h"
#include "qatx/kernels/grid_cursor.h"
#include "qatx/kernels/implementations.h"
#include "qatx/kernels/packing.h"

namespace qatx::kernels {
namespace {

// Products of an unsigned and a signed byte are added up in pairs with vpmaddwd, on both sides
// widened to 16 bits: vpmaddubsw would saturate. Weights are packed as
//   [block][segment][group of 4 bytes][2: bytes 0 and 2, bytes 1 and 3][column][2]
// filled up with zeros, because a mask turns 4 codes into the even ones, widened.
constexpr int64_t kBlock = avx2::kColumns;
constexpr int64_t kGroup = 4;
constexpr int64_t kGroupBytes = kBlock * kGroup;

struct Group {
  static constexpr int64_t kRun = 1;

  template <class At>
  static void visit(const At& at) {
    for (int64_t odd = 0; odd < 2; ++odd) {
      for (int64_t c = 0; c < kBlock; ++c) {
        for (int64_t i = odd; i < kGroup; i += 2) at(c, i);
      }
    }
  }
};
using Order = BlockOrder<kBlock, kGroup, Group>;
using Weights = GemmPacking<Order>;

// 4 codes in every 32-bit element. The last group of a segment may reach behind its end: weights
// are zero there.
inline __m256i broadcast_group(const uint8_t* codes) {
  int32_t group;
  __builtin_memcpy(&group, codes, sizeof(group));
  return _mm256_set1_epi32(group);
}

inline __m256i load_weights(const int8_t* weight) {
  return _mm256_cvtepi8_epi16(_mm_load_si128(reinterpret_cast<const __m128i*>(weight)));
}

// As assembly, because GCC 12 otherwise adds products to one another first, for which it runs out
// of registers.
inline __attribute__((always_inline)) void add_to(__m256i& acc, __m256i products) {
  asm("vpaddd %1, %0, %0" : "+x"(acc) : "x"(products));
}

// kRows x 16 results; `weight` is the block's. Every loop over rows has to be unrolled, so that the
// accumulators are registers.
template <int kRows>
void tile(const GemmArgs& args, const int8_t* weight, GridCursor& cursor, int64_t row,
          int64_t column, const avx2::Finish& finish) {
  const uint8_t* rows[kRows];
  for (int r = 0; r < kRows; ++r, cursor.advance()) rows[r] = cursor.row();

  __m256i acc[kRows][2];
  const auto* start = reinterpret_cast<const __m256i*>(args.start + column);
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r) {
    acc[r][0] = _mm256_loadu_si256(start);
    acc[r][1] = _mm256_loadu_si256(start + 1);
  }
  const __m256i even_bytes = _mm256_set1_epi16(0xff);
  for (int64_t s = 0; s < args.grid.segments; ++s) {
    const uint8_t* codes[kRows];
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) codes[r] = rows[r] + args.grid.offsets[s];
    for (int64_t i = 0; i < args.k; i += kGroup, weight += kGroupBytes) {
#pragma GCC unroll 2
      for (int odd = 0; odd < 2; ++odd) {
        const __m256i w0 = load_weights(weight + odd * kGroupBytes / 2);
        const __m256i w1 = load_weights(weight + odd * kGroupBytes / 2 + kBlock);
#pragma GCC unroll 4
        for (int r = 0; r < kRows; ++r) {
          // Another load for the odd bytes, from one byte further: it costs less than a shift.
          const __m256i pairs = _mm256_and_si256(broadcast_group(codes[r] + i + odd), even_bytes);
          add_to(acc[r][0], _mm256_madd_epi16(pairs, w0));
          add_to(acc[r][1], _mm256_madd_epi16(pairs, w1));
        }
      }
    }
  }
  // A copy: variables whose address is passed on are never registers.
  __m256i results[kRows][2];
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r) {
    results[r][0] = acc[r][0];
    results[r][1] = acc[r][1];
  }
  for (int r = 0; r < kRows; ++r) {
    finish(results[r], row + r, out_offset(args.epilogue, args.grid, row + r), column,
           args.n - column);
  }
}

// 4 x 2 accumulators, 2 registers of weights, the mask, codes and products: all of the 16 there
// are.
constexpr int kMaxRows = 4;

template <int kRows = kMaxRows>
void run_rows(const GemmArgs& args, const int8_t* weight, GridCursor& cursor, int64_t row,
              int64_t column, const avx2::Finish& finish) {
  for (; row + kRows <= args.grid.rows; row += kRows) {
    tile<kRows>(args, weight, cursor, row, column, finish);
  }
  if constexpr (kRows > 1) {
    run_rows<kRows - 1>(args, weight, cursor, row, column, finish);
  }
}

void run(const GemmArgs& args, int64_t block_begin, int64_t block_end) {
  const int64_t bytes = Order::block_bytes(args.grid.segments, args.k);
  const avx2::Finish finish(args.epilogue);
  for (int64_t block = block_begin; block < block_end; ++block) {
    const int8_t* weight =
        static_cast<const int8_t*>(args.weight) + (block - args.first_block) * bytes;
    GridCursor cursor(args.grid);
    run_rows(args, weight, cursor, 0, block * kBlock, finish);
  }
}

}  // namespace

const GemmKernel avx2::gemm = {kBlock,        kMaxRows,        1,  Order::block_bytes,
                               Weights::pack, Weights::unpack, run};

}  // namespace qatx::kernels
