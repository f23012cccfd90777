#include "qatx/kernels/gemm.h"

#include "qatx/kernels/amx/tiles.h"
#include "qatx/kernels/avx512/finish_rows.h"
#include "qatx/kernels/ceil_div.h"
#include "qatx/kernels/implementations.h"
#include "qatx/kernels/packing.h"

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
// What weights may take of the first cache.
constexpr int64_t kFirstCacheBytes = 24 * 1024;
// Blocks that are finished together: going from tiles to vectors and back takes time.
constexpr int64_t kMostTogether = 2;

int64_t block_bytes(int64_t segments, int64_t k) {
  return segments * ceil_div(k, kRowBytes) * kChunkBytes;
}

struct Order {
  template <class Visit>
  static void visit(int64_t n, int64_t segments, int64_t k, const Visit& visit) {
    for (int64_t block = 0; block < n; block += kBlock) {
      for (int64_t s = 0; s < segments; ++s) {
        for (int64_t chunk = 0; chunk < k; chunk += kRowBytes) {
          for (int64_t tile = block; tile < block + kBlock; tile += kTileColumns) {
            for (int64_t group = chunk; group < chunk + kRowBytes; group += kGroup) {
              for (int64_t c = tile; c < tile + kTileColumns; ++c) {
                for (int64_t i = group; i < group + kGroup; ++i) {
                  visit(c < n && i < k ? (c * segments + s) * k + i : -1);
                }
              }
            }
          }
        }
      }
    }
  }
};
using Weights = GemmPacking<Order>;

// acc[16 kRowTiles][16 kColumnTiles] for the rows from `upper` and, in a second tile, from `lower`
// on, without their start. `weight` is the block's. Meanwhile kLines lines of each chunk of `next`
// are fetched into the second cache.
template <int kRowTiles, int kColumnTiles, int kLines>
void multiply(const GemmArgs& args, const uint8_t* upper, const uint8_t* lower,
              const int8_t* weight, const int8_t* next) {
  // Tiles 0 to 3: accumulators; 4, 5: input; 6, 7: weights.
  _tile_zero(0);
  if constexpr (kColumnTiles == 2) _tile_zero(1);
  if constexpr (kRowTiles == 2) _tile_zero(2);
  if constexpr (kRowTiles * kColumnTiles == 4) _tile_zero(3);
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
}

// What multiply has left in the tiles, into rows of acc that are `vectors` apart.
template <int kRowTiles, int kColumnTiles>
void store(__m512i* acc, int64_t vectors) {
  const int64_t stride = vectors * kRowBytes;
  _tile_stored(0, acc, stride);
  if constexpr (kColumnTiles == 2) _tile_stored(1, acc + 1, stride);
  __m512i* below = acc + kTileRows * vectors;
  if constexpr (kRowTiles == 2) _tile_stored(2, below, stride);
  if constexpr (kRowTiles * kColumnTiles == 4) _tile_stored(3, below + 1, stride);
}

// Turns the accumulators of a tile's columns into codes.
struct Finish {
  using Rows = void (*)(const __m512i*, int64_t, int64_t, const avx512::Output&, avx512::Columns);

  Finish(const avx512::Output& of, bool has_start, avx512::Columns some)
      : output(of),
        columns(some),
        vectors(ceil_div(some.count, kTileColumns)),
        rows(has_start ? rows_of<true>(vectors) : rows_of<false>(vectors)) {}

  const avx512::Output& output;
  avx512::Columns columns;
  int64_t vectors;  // of a row
  Rows rows;

 private:
  template <bool kStart>
  static Rows rows_of(int64_t vectors) {
    return vectors == 1   ? avx512::finish_rows<1, kStart>
           : vectors == 2 ? avx512::finish_rows<2, kStart>
           : vectors == 3 ? avx512::finish_rows<3, kStart>
                          : avx512::finish_rows<4, kStart>;
  }
};

// Where a place of a piece stands. Places are its rows and what lies between its lines.
struct Place {
  int64_t row;  // of the output; the next one, where the place is none
  int64_t x;    // in its line
};

// Lines of rows, with what is left out behind each.
struct Lines {
  Lines(const Grid& grid, int64_t places)
      : width(grid.width == grid.pitch ? places : grid.width),
        pitch(grid.width == grid.pitch ? places : grid.pitch) {}

  int64_t width;
  int64_t pitch;
};

// Finishes `places` places from `at` on, and moves `at` behind them.
void finish_places(const __m512i* acc, int64_t places, const Lines& lines, Place& at,
                   const Finish& finish) {
  while (places > 0) {
    const bool in_line = at.x < lines.width;
    const int64_t left = (in_line ? lines.width : lines.pitch) - at.x;
    const int64_t count = places < left ? places : left;
    if (in_line) {
      finish.rows(acc, at.row, count, finish.output, finish.columns);
      at.row += count;
    }
    acc += count * finish.vectors;
    places -= count;
    at.x += count;
    if (at.x == lines.pitch) at.x = 0;
  }
}

// A piece's places in pairs of tiles. A tile that would reach beyond the last place begins earlier:
// some of its rows are computed twice. Where there are fewer places than a tile has rows, its rows
// are fewer too.
class Pairs {
 public:
  Pairs(const Grid& grid, const Grid::Piece& piece)
      : places_((piece.lines - 1) * grid.pitch + grid.width),
        last_tile_(places_ > kTileRows ? places_ - kTileRows : 0),
        lines_(grid, places_),
        input_(piece.input),
        step_(grid.step) {}

  int64_t count() const { return ceil_div(places_, kPairRows); }
  int64_t tile_rows() const { return places_ < kTileRows ? places_ : kTileRows; }
  bool has_lower(int64_t pair) const { return places_ - pair * kPairRows > kTileRows; }
  const uint8_t* upper(int64_t pair) const { return input_ + begin(pair * kPairRows) * step_; }
  const uint8_t* lower(int64_t pair) const {
    return input_ + begin(pair * kPairRows + kTileRows) * step_;
  }

  // Finishes a pair, whose first place is `at`. Returns the next one's.
  Place finish(int64_t pair, const __m512i* acc, Place at, const Finish& finish) const {
    const int64_t upper = pair * kPairRows;
    const int64_t lower = upper + kTileRows;
    const int64_t count = places_ - upper < kPairRows ? places_ - upper : kPairRows;
    const __m512i* sums = acc + (upper - begin(upper)) * finish.vectors;
    if (count <= kTileRows || begin(lower) == lower) {
      finish_places(sums, count, lines_, at, finish);
    } else {
      finish_places(sums, kTileRows, lines_, at, finish);
      sums += (kTileRows + lower - begin(lower)) * finish.vectors;
      finish_places(sums, count - kTileRows, lines_, at, finish);
    }
    return at;
  }

 private:
  // Of the tile of a place.
  int64_t begin(int64_t place) const { return place < last_tile_ ? place : last_tile_; }

  int64_t places_;
  int64_t last_tile_;
  Lines lines_;
  const uint8_t* input_;
  int64_t step_;
};

// The functions for a number of tiles.
struct Tiles {
  void (*multiply)(const GemmArgs&, const uint8_t*, const uint8_t*, const int8_t*, const int8_t*);
  void (*store)(__m512i*, int64_t);
};

template <int kColumnTiles>
Tiles choose(bool has_lower, int64_t lines) {
  if (!has_lower) return {multiply<1, kColumnTiles, 0>, store<1, kColumnTiles>};
  return {lines == 0    ? multiply<2, kColumnTiles, 0>
          : lines == 8  ? multiply<2, kColumnTiles, 8>
          : lines == 16 ? multiply<2, kColumnTiles, 16>
                        : multiply<2, kColumnTiles, 32>,
          store<2, kColumnTiles>};
}

bool are_zero(const int32_t* values, int64_t count) {
  int32_t any = 0;
  for (int64_t i = 0; i < count; ++i) any |= values[i];
  return any == 0;
}

// The blocks [block_begin, block_end) of a piece whose first row is `row`. Meanwhile as many blocks
// behind them are fetched if `fetch`.
void run_piece(const GemmArgs& args, const Pairs& pairs, int64_t row, int64_t block_begin,
               int64_t block_end, bool has_start, bool fetch, const avx512::Output& output) {
  const int64_t bytes = block_bytes(args.grid.segments, args.k);
  // The weights of a large layer come from memory. The first pairs of rows share the next ones.
  const int64_t sharing = pairs.count() >= 4 ? 4 : pairs.count() >= 2 ? 2 : 1;
  __m512i acc[kPairRows * kMostTogether * 2];
  Place at{row, 0};
  for (int64_t pair = 0; pair < pairs.count(); ++pair) {
    const bool has_lower = pairs.has_lower(pair);
    const int64_t lines = fetch && pair < sharing ? kChunkBytes / kLineBytes / sharing : 0;
    Place behind = at;
    for (int64_t block = block_begin; block < block_end; block += kMostTogether) {
      const int64_t end = block + kMostTogether < block_end ? block + kMostTogether : block_end;
      const int64_t column = block * kBlock;
      const int64_t columns = (end * kBlock < args.n ? end * kBlock : args.n) - column;
      const Finish finish(output, has_start, {column, columns});
      for (int64_t b = block; b < end; ++b) {
        const int8_t* weight =
            static_cast<const int8_t*>(args.weight) + (b - args.first_block) * bytes;
        const int8_t* next = weight + (block_end - block_begin) * bytes + pair * lines * kLineBytes;
        const Tiles tiles = args.n - b * kBlock > kTileColumns ? choose<2>(has_lower, lines)
                                                               : choose<1>(has_lower, lines);
        tiles.multiply(args, pairs.upper(pair), pairs.lower(pair), weight, next);
        tiles.store(acc + 2 * (b - block), finish.vectors);
      }
      behind = pairs.finish(pair, acc, at, finish);
    }
    at = behind;
  }
}

void run(const GemmArgs& args, int64_t block_begin, int64_t block_end) {
  amx::UseTiles tiles;
  const Grid& grid = args.grid;
  const avx512::Output output(args.epilogue, args.start, args.n, args.grid.segments * args.k);
  // Blocks whose weights fit the first cache together take a pair of rows one after the other: so
  // whole cache lines of output are written.
  const int64_t fit = kFirstCacheBytes / block_bytes(grid.segments, args.k);
  const int64_t together = fit < 1 ? 1 : fit;
  const bool has_start = !are_zero(args.start, args.n);
  amx::settle_memory();
  for (int64_t block = block_begin; block < block_end; block += together) {
    const int64_t end = block + together < block_end ? block + together : block_end;
    int64_t row = 0;
    for (int64_t p = 0; p < grid.piece_count; ++p) {
      const Pairs pairs(grid, grid.pieces[p]);
      tiles.set_rows(pairs.tile_rows());
      run_piece(args, pairs, row, block, end, has_start, p == 0, output);
      row += grid.pieces[p].lines * grid.width;
    }
  }
}

}  // namespace

const GemmKernel amx::gemm = {kBlock, kPairRows, block_bytes, Weights::pack, Weights::unpack, run};

}  // namespace qatx::kernels
