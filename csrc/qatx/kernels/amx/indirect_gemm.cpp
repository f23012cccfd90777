#include "qatx/kernels/indirect_gemm.h"

#include "qatx/kernels/amx/input_panel.h"
#include "qatx/kernels/amx/tiles.h"
#include "qatx/kernels/avx512/finish_rows.h"
#include "qatx/kernels/implementations.h"

namespace qatx::kernels {
namespace {

using amx::ceil_div;
using amx::kRowBytes;
using amx::kTileBytes;
using amx::kTileRows;
using amx::Panel;
using amx::Shape;
using amx::Source;

// Weights are packed as [block][chunk of 64 bytes of a row][tile of 16 columns], filled up with
// zeros. A tile holds [group of 4 bytes of the chunk][column][4].
constexpr int64_t kTileColumns = 16;
constexpr int64_t kBlock = 2 * kTileColumns;
constexpr int64_t kGroup = 4;
constexpr int64_t kPairRows = 2 * kTileRows;
constexpr int64_t kLineBytes = 64;
// Of the weights of a block, for 64 bytes of a row.
constexpr int64_t kChunkBytes = 2 * kTileBytes;
// The input of a panel stays in the second cache while all weights pass.
constexpr int64_t kPanelBytes = 512 * 1024;

size_t packed_bytes(int64_t n, int64_t taps, int64_t k) {
  return static_cast<size_t>(ceil_div(n, kBlock) * ceil_div(taps * k, kRowBytes) * 2 * kTileBytes);
}

void pack(const int8_t* weight, int64_t n, int64_t taps, int64_t k, void* packed) {
  auto* out = static_cast<int8_t*>(packed);
  const int64_t bytes = taps * k;
  for (int64_t block = 0; block < n; block += kBlock) {
    for (int64_t chunk = 0; chunk < bytes; chunk += kRowBytes) {
      for (int64_t tile = block; tile < block + kBlock; tile += kTileColumns) {
        for (int64_t group = chunk; group < chunk + kRowBytes; group += kGroup) {
          for (int64_t c = tile; c < tile + kTileColumns; ++c) {
            for (int64_t i = group; i < group + kGroup; ++i) {
              *out++ = c < n && i < bytes ? weight[c * bytes + i] : int8_t{0};
            }
          }
        }
      }
    }
  }
}

// acc[16 kRowTiles][16 kColumnTiles] for the tiles of rows from `tile` on. `weight` is the block's,
// `start` its accumulators' first values. Meanwhile kLines lines of each chunk of `next` are
// fetched into the second cache.
template <int kRowTiles, int kColumnTiles, int kLines>
void multiply(const Shape& shape, const Panel& panel, int64_t tile, const int8_t* weight,
              const int8_t* next, const int32_t* start, __m512i* acc) {
  // Tiles 0 to 3: accumulators; 4, 5: input; 6, 7: weights. A stride of 0 repeats a row.
  _tile_loadd(0, start, 0);
  if constexpr (kColumnTiles == 2) _tile_loadd(1, start + kTileColumns, 0);
  if constexpr (kRowTiles == 2) {
    _tile_loadd(2, start, 0);
    if constexpr (kColumnTiles == 2) _tile_loadd(3, start + kTileColumns, 0);
  }
  for (int64_t s = 0; s < shape.segments; ++s) {
    const Source upper = panel.at(tile, s);
    const Source lower = panel.at(tile + kRowTiles - 1, s);
    const int64_t end = shape.segment_chunks * kRowBytes;
    for (int64_t i = 0; i < end; i += kRowBytes, weight += kChunkBytes, next += kChunkBytes) {
#pragma GCC unroll 32
      for (int line = 0; line < kLines; ++line) {
        _mm_prefetch(next + line * kLineBytes, _MM_HINT_T1);
      }
      _tile_loadd(4, upper.first + i, upper.stride);
      _tile_loadd(6, weight, kRowBytes);
      _tile_dpbusd(0, 4, 6);
      if constexpr (kColumnTiles == 2) {
        _tile_loadd(7, weight + kTileBytes, kRowBytes);
        _tile_dpbusd(1, 4, 7);
      }
      if constexpr (kRowTiles == 2) {
        _tile_loadd(5, lower.first + i, lower.stride);
        _tile_dpbusd(2, 5, 6);
        if constexpr (kColumnTiles == 2) _tile_dpbusd(3, 5, 7);
      }
    }
  }
  constexpr int64_t stride = kColumnTiles * kRowBytes;
  _tile_stored(0, acc, stride);
  if constexpr (kColumnTiles == 2) _tile_stored(1, acc + 1, stride);
  if constexpr (kRowTiles == 2) {
    __m512i* below = acc + kTileRows * kColumnTiles;
    _tile_stored(2, below, stride);
    if constexpr (kColumnTiles == 2) _tile_stored(3, below + 1, stride);
  }
}

// A block of columns of `rows` rows, the first of which is `row`.
template <int kColumnTiles>
void run_block(const Shape& shape, const Panel& panel, const int8_t* weight, const int32_t* start,
               int64_t row, int64_t rows, const avx512::Output& output) {
  // Two, so that the processor can turn one into codes while it computes the other.
  __m512i acc[2][kPairRows * kColumnTiles];
  int64_t done = 0;
  const auto finish = [&](int64_t pair) {
    const int64_t first = pair * kPairRows;
    const int64_t count = rows - first < kPairRows ? rows - first : kPairRows;
    avx512::finish_rows<kColumnTiles>(acc[pair % 2], row + first, count, output);
  };
  const int64_t pairs = ceil_div(rows, kPairRows);
  // The weights of a large layer come from memory. The first pairs of rows share the next block's.
  const int8_t* next = weight + shape.chunks * kChunkBytes;
  const int64_t sharing = pairs >= 4 ? 4 : pairs >= 2 ? 2 : 1;
  const auto choose = [](int64_t lines) {
    return lines == 0    ? multiply<2, kColumnTiles, 0>
           : lines == 8  ? multiply<2, kColumnTiles, 8>
           : lines == 16 ? multiply<2, kColumnTiles, 16>
                         : multiply<2, kColumnTiles, 32>;
  };
  for (int64_t pair = 0; pair < pairs; ++pair) {
    const int64_t lines = pair < sharing ? kChunkBytes / kLineBytes / sharing : 0;
    const auto multiply_pair =
        rows - pair * kPairRows > kTileRows ? choose(lines) : multiply<1, kColumnTiles, 0>;
    multiply_pair(shape, panel, 2 * pair, weight, next + pair * lines * kLineBytes, start,
                  acc[pair % 2]);
    if (pair > 0) finish(done++);
  }
  finish(done);
}

void run(const GemmArgs& args, int64_t row_begin, int64_t row_end, int64_t block_begin,
         int64_t block_end) {
  if (row_begin >= row_end) return;
  const Shape shape(args);
  const amx::UseTiles tiles;
  const int64_t all = row_end - row_begin;
  const int64_t fit = kPanelBytes / (shape.chunks * kRowBytes) / kPairRows * kPairRows;
  const int64_t most = fit < kPairRows ? kPairRows : fit < all ? fit : all;
  Panel panel(shape, ceil_div(most, kTileRows));
  WindowCursor cursor(args.window, row_begin);
  for (int64_t row = row_begin; row < row_end; row += most) {
    const int64_t rows = row_end - row < most ? row_end - row : most;
    panel.fill(args, cursor, rows);
    amx::settle_memory();
    for (int64_t block = block_begin; block < block_end; ++block) {
      const auto* weight =
          static_cast<const int8_t*>(args.weight) + block * shape.chunks * kChunkBytes;
      const int64_t column = block * kBlock;
      const int64_t columns = args.n - column < kBlock ? args.n - column : kBlock;
      const avx512::Output output(args.epilogue, column, columns);
      const auto run_columns = columns > kTileColumns ? run_block<2> : run_block<1>;
      run_columns(shape, panel, weight, args.start + column, row, rows, output);
    }
  }
}

}  // namespace

const GemmKernel amx::gemm = {kBlock, kPairRows, packed_bytes, pack, run};

}  // namespace qatx::kernels
