#include "qatx/kernels/gemm.h"

#include "qatx/kernels/amx/tiles.h"
#include "qatx/kernels/avx512/finish_rows.h"
#include "qatx/kernels/implementations.h"

namespace qatx::kernels {
namespace {

using amx::kRowBytes;
using amx::kTileBytes;
using amx::kTileRows;

// Weights are packed as [block][segment][chunk of 64 bytes][tile of 16 columns], filled up with
// zeros. A tile holds [group of 4 bytes of the chunk][column][4].
constexpr int64_t kTileColumns = 16;
constexpr int64_t kBlock = 2 * kTileColumns;
constexpr int64_t kGroup = 4;
constexpr int64_t kPairRows = 2 * kTileRows;
constexpr int64_t kLineBytes = 64;
// Of the weights of a block, for 64 bytes of a row.
constexpr int64_t kChunkBytes = 2 * kTileBytes;

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

int64_t block_bytes(int64_t segments, int64_t k) {
  return segments * ceil_div(k, kRowBytes) * kChunkBytes;
}

size_t packed_bytes(int64_t n, int64_t segments, int64_t k) {
  return static_cast<size_t>(ceil_div(n, kBlock) * block_bytes(segments, k));
}

void pack(const int8_t* weight, int64_t n, int64_t segments, int64_t k, void* packed) {
  auto* out = static_cast<int8_t*>(packed);
  for (int64_t block = 0; block < n; block += kBlock) {
    for (int64_t s = 0; s < segments; ++s) {
      for (int64_t chunk = 0; chunk < k; chunk += kRowBytes) {
        for (int64_t tile = block; tile < block + kBlock; tile += kTileColumns) {
          for (int64_t group = chunk; group < chunk + kRowBytes; group += kGroup) {
            for (int64_t c = tile; c < tile + kTileColumns; ++c) {
              for (int64_t i = group; i < group + kGroup; ++i) {
                *out++ = c < n && i < k ? weight[(c * segments + s) * k + i] : int8_t{0};
              }
            }
          }
        }
      }
    }
  }
}

// acc[16 kRowTiles][16 kColumnTiles] for the rows from `upper` and, in a second tile, from `lower`
// on. `weight` is the block's, `start` its accumulators' first values. Meanwhile kLines lines of
// each chunk of `next` are fetched into the second cache.
template <int kRowTiles, int kColumnTiles, int kLines>
void multiply(const GemmArgs& args, const uint8_t* upper, const uint8_t* lower,
              const int8_t* weight, const int8_t* next, const int32_t* start, __m512i* acc) {
  // Tiles 0 to 3: accumulators; 4, 5: input; 6, 7: weights. A stride of 0 repeats a row.
  _tile_loadd(0, start, 0);
  if constexpr (kColumnTiles == 2) _tile_loadd(1, start + kTileColumns, 0);
  if constexpr (kRowTiles == 2) {
    _tile_loadd(2, start, 0);
    if constexpr (kColumnTiles == 2) _tile_loadd(3, start + kTileColumns, 0);
  }
  const int64_t step = args.grid.step;
  for (int64_t s = 0; s < args.grid.segments; ++s) {
    const int64_t end = args.grid.offsets[s] + args.k;
    for (int64_t i = args.grid.offsets[s]; i < end;
         i += kRowBytes, weight += kChunkBytes, next += kChunkBytes) {
#pragma GCC unroll 32
      for (int line = 0; line < kLines; ++line) {
        _mm_prefetch(next + line * kLineBytes, _MM_HINT_T1);
      }
      _tile_loadd(4, upper + i, step);
      _tile_loadd(6, weight, kRowBytes);
      _tile_dpbusd(0, 4, 6);
      if constexpr (kColumnTiles == 2) {
        _tile_loadd(7, weight + kTileBytes, kRowBytes);
        _tile_dpbusd(1, 4, 7);
      }
      if constexpr (kRowTiles == 2) {
        _tile_loadd(5, lower + i, step);
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

// Turns the accumulators of a piece's places into codes, one after the other. Places are its rows
// and what lies between its lines, which is left out.
template <int kColumnTiles>
class Finisher {
 public:
  Finisher(const Grid& grid, int64_t places, int64_t row, const avx512::Output& output)
      : output_(output),
        width_(grid.width == grid.pitch ? places : grid.width),
        pitch_(grid.width == grid.pitch ? places : grid.pitch),
        row_(row) {}

  void finish(const __m512i* acc, int64_t places) {
    while (places > 0) {
      const bool in_line = x_ < width_;
      const int64_t left = (in_line ? width_ : pitch_) - x_;
      const int64_t count = places < left ? places : left;
      if (in_line) {
        avx512::finish_rows<kColumnTiles>(acc, row_, count, output_);
        row_ += count;
      }
      acc += count * kColumnTiles;
      places -= count;
      x_ += count;
      if (x_ == pitch_) x_ = 0;
    }
  }

 private:
  const avx512::Output& output_;
  int64_t width_;
  int64_t pitch_;
  int64_t row_;
  int64_t x_ = 0;
};

int64_t count_places(const Grid& grid, const Grid::Piece& piece) {
  return (piece.lines - 1) * grid.pitch + grid.width;
}

// A block of columns of a piece whose first row is `row`. Meanwhile `next`, the weights of another
// block, is fetched if it is not nullptr.
template <int kColumnTiles>
void run_piece(const GemmArgs& args, const Grid::Piece& piece, int64_t row, const int8_t* weight,
               const int8_t* next, const int32_t* start, const avx512::Output& output) {
  const int64_t places = count_places(args.grid, piece);
  Finisher<kColumnTiles> finisher(args.grid, places, row, output);
  // Two, so that the processor can turn one into codes while it computes the other.
  __m512i acc[2][kPairRows * kColumnTiles];
  // A tile that would reach beyond the last place begins earlier: some of its rows are computed
  // twice. Where there are fewer places than a tile has rows, its rows are fewer too.
  const int64_t last_tile = places > kTileRows ? places - kTileRows : 0;
  const auto begin = [&](int64_t place) { return place < last_tile ? place : last_tile; };
  const auto finish = [&](int64_t pair) {
    const int64_t upper = pair * kPairRows;
    const int64_t lower = upper + kTileRows;
    const __m512i* sums = acc[pair % 2] + (upper - begin(upper)) * kColumnTiles;
    const int64_t count = places - upper < kPairRows ? places - upper : kPairRows;
    if (count <= kTileRows || begin(lower) == lower) {
      finisher.finish(sums, count);
    } else {
      finisher.finish(sums, kTileRows);
      finisher.finish(sums + (kTileRows + lower - begin(lower)) * kColumnTiles, count - kTileRows);
    }
  };
  const int64_t pairs = ceil_div(places, kPairRows);
  // The weights of a large layer come from memory. The first pairs of rows share the next block's.
  const int64_t sharing = pairs >= 4 ? 4 : pairs >= 2 ? 2 : 1;
  const auto choose = [](int64_t lines) {
    return lines == 0    ? multiply<2, kColumnTiles, 0>
           : lines == 8  ? multiply<2, kColumnTiles, 8>
           : lines == 16 ? multiply<2, kColumnTiles, 16>
                         : multiply<2, kColumnTiles, 32>;
  };
  for (int64_t pair = 0; pair < pairs; ++pair) {
    const int64_t place = pair * kPairRows;
    const int64_t lines = next && pair < sharing ? kChunkBytes / kLineBytes / sharing : 0;
    const auto multiply_pair =
        places - place > kTileRows ? choose(lines) : multiply<1, kColumnTiles, 0>;
    multiply_pair(args, piece.input + begin(place) * args.grid.step,
                  piece.input + begin(place + kTileRows) * args.grid.step, weight,
                  lines > 0 ? next + pair * lines * kLineBytes : weight, start, acc[pair % 2]);
    if (pair > 0) finish(pair - 1);
  }
  finish(pairs - 1);
}

void run(const GemmArgs& args, int64_t block_begin, int64_t block_end) {
  amx::UseTiles tiles;
  const Grid& grid = args.grid;
  const int64_t bytes = block_bytes(grid.segments, args.k);
  amx::settle_memory();
  for (int64_t block = block_begin; block < block_end; ++block) {
    const int8_t* weight = static_cast<const int8_t*>(args.weight) + block * bytes;
    const int64_t column = block * kBlock;
    const int64_t columns = args.n - column < kBlock ? args.n - column : kBlock;
    const avx512::Output output(args.epilogue, column, columns);
    const auto run_columns = columns > kTileColumns ? run_piece<2> : run_piece<1>;
    int64_t row = 0;
    for (int64_t p = 0; p < grid.piece_count; ++p) {
      const Grid::Piece& piece = grid.pieces[p];
      const int64_t places = count_places(grid, piece);
      tiles.set_rows(places < kTileRows ? places : kTileRows);
      run_columns(args, piece, row, weight, p == 0 ? weight + bytes : nullptr,
                  args.start + column, output);
      row += piece.lines * grid.width;
    }
  }
}

}  // namespace

const GemmKernel amx::gemm = {kBlock, kPairRows, packed_bytes, pack, run};

}  // namespace qatx::kernels
