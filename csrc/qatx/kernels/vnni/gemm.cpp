#include "qatx/kernels/gemm.h"

#include "qatx/kernels/avx512/finish_rows.h"
#include "qatx/kernels/ceil_div.h"
#include "qatx/kernels/grid_cursor.h"
#include "qatx/kernels/implementations.h"
#include "qatx/kernels/packing.h"
#include "qatx/kernels/vnni/dot.h"

namespace qatx::kernels {
namespace {

// Weights are packed as [block][segment][group of 4 bytes][column][4], filled up with zeros,
// so that one register holds 4 consecutive bytes of 16 columns.
constexpr int64_t kBlock = 64;
constexpr int64_t kGroup = 4;
constexpr int64_t kGroupBytes = kBlock * kGroup;
constexpr int64_t kVectorBytes = 64;
constexpr int64_t kVectorColumns = 16;

struct Group {
  static constexpr int64_t kRun = kGroup;

  template <class At>
  static void visit(const At& at) {
    for (int64_t c = 0; c < kBlock; ++c) at(c, 0);
  }
};
using Order = BlockOrder<kBlock, kGroup, Group>;
using Weights = GemmPacking<Order>;

// 4 codes in every 32-bit element. The last group of a segment may reach behind its end: weights
// are zero there.
inline __m512i broadcast_group(const uint8_t* codes) {
  int32_t group;
  __builtin_memcpy(&group, codes, sizeof(group));
  return _mm512_set1_epi32(group);
}

// kRows x 16 kVectors results; `weight` is the block's. Every loop over rows and vectors has to be
// unrolled, so that the accumulators are registers.
template <int kRows, int kVectors>
void tile(const GemmArgs& args, const int8_t* weight, GridCursor& cursor, int64_t row,
          const avx512::Output& output, avx512::Columns columns) {
  const uint8_t* rows[kRows];
  for (int r = 0; r < kRows; ++r, cursor.advance()) rows[r] = cursor.row();

  __m512i acc[kRows][kVectors];
#pragma GCC unroll 4
  for (int v = 0; v < kVectors; ++v) {
    const __m512i start = _mm512_loadu_si512(args.start + columns.first + v * kVectorColumns);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) acc[r][v] = start;
  }
  for (int64_t s = 0; s < args.grid.segments; ++s) {
    const uint8_t* codes[kRows];
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) codes[r] = rows[r] + args.grid.offsets[s];
    for (int64_t i = 0; i < args.k; i += kGroup, weight += kGroupBytes) {
      __m512i w[kVectors];
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) w[v] = _mm512_load_si512(weight + v * kVectorBytes);
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r) {
        const __m512i a = broadcast_group(codes[r] + i);
#pragma GCC unroll 4
        for (int v = 0; v < kVectors; ++v) vnni::dot(acc[r][v], a, w[v]);
      }
    }
  }
  // A copy: variables whose address is passed on are never registers.
  __m512i results[kRows][kVectors];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) results[r][v] = acc[r][v];
  }
  const int together = args.epilogue.out_gap == 0 ? kRows : 1;  // rows that follow one another
  for (int r = 0; r < kRows; r += together) {
    avx512::finish_rows<kVectors, 1, false>(results[r], kVectors, row + r, together,
                                            out_offset(args.epilogue, args.grid, row + r), output,
                                            columns);
  }
}

// 6 x 4 accumulators, 4 registers of weights and one of codes make 29 of the 32 there are.
constexpr int kMaxRows = 6;

template <int kVectors, int kRows = kMaxRows>
void run_rows(const GemmArgs& args, const int8_t* weight, GridCursor& cursor, int64_t row,
              const avx512::Output& output, avx512::Columns columns) {
  for (; row + kRows <= args.grid.rows; row += kRows) {
    tile<kRows, kVectors>(args, weight, cursor, row, output, columns);
  }
  if constexpr (kRows > 1) {
    run_rows<kVectors, kRows - 1>(args, weight, cursor, row, output, columns);
  }
}

void run(const GemmArgs& args, int64_t block_begin, int64_t block_end) {
  const int64_t bytes = Order::block_bytes(args.grid.segments, args.k);
  const avx512::Output output(args.epilogue, args.start, args.n, args.grid.segments * args.k);
  for (int64_t block = block_begin; block < block_end; ++block) {
    const int8_t* weight =
        static_cast<const int8_t*>(args.weight) + (block - args.first_block) * bytes;
    const int64_t left = args.n - block * kBlock;
    const avx512::Columns columns{block * kBlock, left < kBlock ? left : kBlock};
    const int64_t vectors = ceil_div(columns.count, kVectorColumns);
    const auto run_block = vectors == 1   ? run_rows<1>
                           : vectors == 2 ? run_rows<2>
                           : vectors == 3 ? run_rows<3>
                                          : run_rows<4>;
    GridCursor cursor(args.grid);
    run_block(args, weight, cursor, 0, output, columns);
  }
}

}  // namespace

const GemmKernel vnni::gemm = {kBlock,        kMaxRows,        1,  Order::block_bytes,
                               Weights::pack, Weights::unpack, run};

}  // namespace qatx::kernels
