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
// Of a slice of weights that do not fit, at most.
constexpr int64_t kSliceChunks = kFirstCacheBytes / kChunkBytes;
// Pairs of rows that take a slice one after the other.
constexpr int64_t kPairsTogether = 4;
// Blocks that are finished together: going from tiles to vectors and back takes time.
constexpr int64_t kMostTogether = 2;

struct Chunk {
  template <class At>
  static void visit(const At& at) {
    for (int64_t tile = 0; tile < kBlock; tile += kTileColumns) {
      for (int64_t group = 0; group < kRowBytes; group += kGroup) {
        for (int64_t c = tile; c < tile + kTileColumns; ++c) {
          for (int64_t i = group; i < group + kGroup; ++i) at(c, i);
        }
      }
    }
  }
};
using Order = BlockOrder<kBlock, kRowBytes, Chunk>;
using Weights = GemmPacking<Order>;
static_assert(kChunkBytes == kBlock * kRowBytes);

// A part of what an output sums: `bytes` bytes from `begin` on of each tap of `segments` segments.
struct Slice {
  const int64_t* offsets;  // of its segments
  int64_t segments;
  int64_t begin;
  int64_t bytes;
  int64_t weight_offset;  // of its weights in those of a block
};

// All that an output sums, in slices whose weights leave room in the first cache. Taps that lie
// side by side, as rows do, are told apart: the same bytes of each are the same memory for other
// rows.
class Slices {
 public:
  Slices(const Grid& grid, int64_t k)
      : grid_(grid),
        taps_(rows_are_taps(grid, k) ? k / grid.step : 1),
        chunks_(ceil_div(k / taps_, kRowBytes)) {
    const int64_t segment = taps_ * chunks_;
    if (segment <= kSliceChunks) {
      slice_segments_ = kSliceChunks / segment;
      slice_chunks_ = chunks_;
    } else {
      slice_chunks_ = ceil_div(chunks_, ceil_div(segment, kSliceChunks));
    }
    across_ = ceil_div(chunks_, slice_chunks_);
    count_ = ceil_div(grid.segments, slice_segments_) * across_;
  }

  int64_t count() const { return count_; }
  Slice operator[](int64_t i) const {
    const int64_t segment = i / across_ * slice_segments_;
    const int64_t segments = grid_.segments - segment;
    const int64_t chunk = i % across_ * slice_chunks_;
    const int64_t chunks = chunks_ - chunk;
    return {grid_.offsets + segment, segments < slice_segments_ ? segments : slice_segments_,
            chunk * kRowBytes, (chunks < slice_chunks_ ? chunks : slice_chunks_) * kRowBytes,
            segment * taps_ * weight_bytes() + chunk * kChunkBytes};
  }

  int64_t step() const { return grid_.step; }
  int64_t taps() const { return taps_; }
  // Of a tap.
  int64_t bytes() const { return chunks_ * kRowBytes; }
  int64_t weight_bytes() const { return chunks_ * kChunkBytes; }

 private:
  static bool rows_are_taps(const Grid& grid, int64_t k) {
    return grid.step > 0 && k % grid.step == 0 && grid.step % kRowBytes == 0;
  }

  const Grid& grid_;
  int64_t taps_;    // of a segment
  int64_t chunks_;  // of a tap
  int64_t slice_segments_ = 1;
  int64_t slice_chunks_;
  int64_t across_;  // slices of a segment
  int64_t count_;
};

// Tiles 0 to 3: accumulators; 4, 5: input; 6, 7: weights.
template <int kRowTiles, int kColumnTiles>
void zero() {
  _tile_zero(0);
  if constexpr (kColumnTiles == 2) _tile_zero(1);
  if constexpr (kRowTiles == 2) _tile_zero(2);
  if constexpr (kRowTiles * kColumnTiles == 4) _tile_zero(3);
}

// Between the accumulators and rows of acc that are `vectors` apart.
template <int kRowTiles, int kColumnTiles>
void load(const __m512i* acc, int64_t vectors) {
  const int64_t stride = vectors * kRowBytes;
  _tile_loadd(0, acc, stride);
  if constexpr (kColumnTiles == 2) _tile_loadd(1, acc + 1, stride);
  const __m512i* below = acc + kTileRows * vectors;
  if constexpr (kRowTiles == 2) _tile_loadd(2, below, stride);
  if constexpr (kRowTiles * kColumnTiles == 4) _tile_loadd(3, below + 1, stride);
}

template <int kRowTiles, int kColumnTiles>
void store(__m512i* acc, int64_t vectors) {
  const int64_t stride = vectors * kRowBytes;
  _tile_stored(0, acc, stride);
  if constexpr (kColumnTiles == 2) _tile_stored(1, acc + 1, stride);
  __m512i* below = acc + kTileRows * vectors;
  if constexpr (kRowTiles == 2) _tile_stored(2, below, stride);
  if constexpr (kRowTiles * kColumnTiles == 4) _tile_stored(3, below + 1, stride);
}

// Adds the products of a chunk, for the rows from `upper` and, in a second tile, from `lower` on,
// which are `step` bytes apart. Meanwhile kLines lines of `next` are fetched into the second cache.
template <int kRowTiles, int kColumnTiles, int kLines>
inline __attribute__((always_inline)) void multiply_chunk(const uint8_t* upper,
                                                          const uint8_t* lower, int64_t step,
                                                          const int8_t* weight,
                                                          const int8_t* next) {
#pragma GCC unroll 32
  for (int line = 0; line < kLines; ++line) _mm_prefetch(next + line * kLineBytes, _MM_HINT_T1);
  _tile_loadd(4, upper, step);
  _tile_loadd(6, weight, kRowBytes);
  _tile_dpbusd(0, 4, 6);
  if constexpr (kColumnTiles == 2) {
    _tile_loadd(7, weight + kTileBytes, kRowBytes);
    _tile_dpbusd(1, 4, 7);
  }
  if constexpr (kRowTiles == 2) {
    _tile_loadd(5, lower, step);
    _tile_dpbusd(2, 5, 6);
    if constexpr (kColumnTiles == 2) _tile_dpbusd(3, 5, 7);
  }
}

// The sums of all segments, without their start. `weight` is the block's.
template <int kRowTiles, int kColumnTiles, int kLines>
void multiply(const GemmArgs& args, const uint8_t* upper, const uint8_t* lower,
              const int8_t* weight, const int8_t* next) {
  zero<kRowTiles, kColumnTiles>();
  for (int64_t s = 0; s < args.grid.segments; ++s) {
    const int64_t end = args.grid.offsets[s] + args.k;
    for (int64_t i = args.grid.offsets[s]; i < end;
         i += kRowBytes, weight += kChunkBytes, next += kChunkBytes) {
      multiply_chunk<kRowTiles, kColumnTiles, kLines>(upper + i, lower + i, args.grid.step, weight,
                                                      next);
    }
  }
}

// Adds those of a slice, whose weights `weight` is.
template <int kRowTiles, int kColumnTiles, int kLines>
void multiply_slice(const Slices& slices, const Slice& slice, const uint8_t* upper,
                    const uint8_t* lower, const int8_t* weight, const int8_t* next) {
  const int64_t ahead = next - weight;
  for (int64_t s = 0; s < slice.segments; ++s) {
    int64_t begin = slice.offsets[s] + slice.begin;
    for (int64_t tap = 0; tap < slices.taps(); ++tap) {
      const int8_t* w = weight;
      for (int64_t i = begin; i < begin + slice.bytes; i += kRowBytes, w += kChunkBytes) {
        multiply_chunk<kRowTiles, kColumnTiles, kLines>(upper + i, lower + i, slices.step(), w,
                                                        w + ahead);
      }
      begin += slices.bytes();
      weight += slices.weight_bytes();
    }
  }
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
  // What it passes fits registers: structures of two numbers would be read as one vector, and wait.
  void (*multiply)(const GemmArgs&, const uint8_t*, const uint8_t*, const int8_t*, const int8_t*);
  void (*multiply_slice)(const Slices&, const Slice&, const uint8_t*, const uint8_t*, const int8_t*,
                         const int8_t*);
  void (*zero)();
  void (*load)(const __m512i*, int64_t);
  void (*store)(__m512i*, int64_t);
};

template <int kRowTiles, int kColumnTiles, int kLines>
constexpr Tiles kTiles = {
    multiply<kRowTiles, kColumnTiles, kLines>, multiply_slice<kRowTiles, kColumnTiles, kLines>,
    zero<kRowTiles, kColumnTiles>, load<kRowTiles, kColumnTiles>, store<kRowTiles, kColumnTiles>};

template <int kColumnTiles>
const Tiles& choose(bool has_lower, int64_t lines) {
  if (!has_lower) return kTiles<1, kColumnTiles, 0>;
  return lines == 0    ? kTiles<2, kColumnTiles, 0>
         : lines == 8  ? kTiles<2, kColumnTiles, 8>
         : lines == 16 ? kTiles<2, kColumnTiles, 16>
                       : kTiles<2, kColumnTiles, 32>;
}

bool are_zero(const int32_t* values, int64_t count) {
  int32_t any = 0;
  for (int64_t i = 0; i < count; ++i) any |= values[i];
  return any == 0;
}

// What computes a piece whose first row is `row`.
struct Work {
  const GemmArgs& args;
  const avx512::Output& output;
  bool has_start;
  const Pairs& pairs;
  int64_t row;
  bool fetch;  // what comes next of the weights, while they are multiplied

  int64_t bytes() const { return Order::block_bytes(args.grid.segments, args.k); }
  const int8_t* weight(int64_t block) const {
    return static_cast<const int8_t*>(args.weight) + (block - args.first_block) * bytes();
  }
  // How many lines of each chunk of weights a pair fetches: the first ones share them.
  int64_t lines(int64_t pair) const {
    const int64_t sharing = pairs.count() >= 4 ? 4 : pairs.count() >= 2 ? 2 : 1;
    return fetch && pair < sharing ? kChunkBytes / kLineBytes / sharing : 0;
  }
  const Tiles& tiles(int64_t pair, int64_t block) const {
    const bool has_lower = pairs.has_lower(pair);
    return args.n - block * kBlock > kTileColumns ? choose<2>(has_lower, lines(pair))
                                                  : choose<1>(has_lower, lines(pair));
  }
  Finish finish(int64_t block_begin, int64_t block_end) const {
    const int64_t column = block_begin * kBlock;
    const int64_t end = block_end * kBlock < args.n ? block_end * kBlock : args.n;
    return Finish(output, has_start, {column, end - column});
  }
};

// Blocks whose weights fit the first cache together, for one pair of rows after the other: so whole
// cache lines of output are written.
void run_blocks(const Work& work, int64_t block_begin, int64_t block_end) {
  const int64_t ahead = (block_end - block_begin) * work.bytes();
  __m512i acc[kPairRows * kMostTogether * 2];
  Place at{work.row, 0};
  for (int64_t pair = 0; pair < work.pairs.count(); ++pair) {
    const int64_t offset = ahead + pair * work.lines(pair) * kLineBytes;
    Place behind = at;
    for (int64_t block = block_begin; block < block_end; block += kMostTogether) {
      const int64_t end = block + kMostTogether < block_end ? block + kMostTogether : block_end;
      const Finish finish = work.finish(block, end);
      for (int64_t b = block; b < end; ++b) {
        const Tiles& tiles = work.tiles(pair, b);
        const int8_t* weight = work.weight(b);
        tiles.multiply(work.args, work.pairs.upper(pair), work.pairs.lower(pair), weight,
                       weight + offset);
        tiles.store(acc + 2 * (b - block), finish.vectors);
      }
      behind = work.pairs.finish(pair, acc, at, finish);
    }
    at = behind;
  }
}

// A block whose weights do not fit, slice by slice for some pairs, the sums of which stay in the
// first cache meanwhile: the second one is too slow to feed the tiles.
void run_slices(const Work& work, int64_t block) {
  const Slices slices(work.args.grid, work.args.k);
  const Finish finish = work.finish(block, block + 1);
  __m512i acc[kPairsTogether][kPairRows * 2];
  Place at{work.row, 0};
  for (int64_t first = 0; first < work.pairs.count(); first += kPairsTogether) {
    const int64_t left = work.pairs.count() - first;
    const int64_t count = left < kPairsTogether ? left : kPairsTogether;
    for (int64_t s = 0; s < slices.count(); ++s) {
      const Slice slice = slices[s];
      const int8_t* weight = work.weight(block) + slice.weight_offset;
      const int8_t* next = s + 1 < slices.count() ? work.weight(block) + slices[s + 1].weight_offset
                                                  : work.weight(block + 1);
      for (int64_t p = 0; p < count; ++p) {
        const int64_t pair = first + p;
        const Tiles& tiles = work.tiles(pair, block);
        if (s == 0) {
          tiles.zero();
        } else {
          tiles.load(acc[p], finish.vectors);
        }
        tiles.multiply_slice(slices, slice, work.pairs.upper(pair), work.pairs.lower(pair), weight,
                             next + pair * work.lines(pair) * kLineBytes);
        tiles.store(acc[p], finish.vectors);
      }
    }
    for (int64_t p = 0; p < count; ++p) at = work.pairs.finish(first + p, acc[p], at, finish);
  }
}

void run(const GemmArgs& args, int64_t block_begin, int64_t block_end) {
  amx::UseTiles tiles;
  const Grid& grid = args.grid;
  const avx512::Output output(args.epilogue, args.start, args.n, args.grid.segments * args.k);
  const int64_t fit = kFirstCacheBytes / Order::block_bytes(grid.segments, args.k);
  const int64_t together = fit < 1 ? 1 : fit;
  const bool has_start = !are_zero(args.start, args.n);
  amx::settle_memory();
  for (int64_t block = block_begin; block < block_end; block += together) {
    const int64_t end = block + together < block_end ? block + together : block_end;
    int64_t row = 0;
    for (int64_t p = 0; p < grid.piece_count; ++p) {
      const Pairs pairs(grid, grid.pieces[p]);
      tiles.set_rows(pairs.tile_rows());
      // The weights of a large layer come from memory.
      const Work work{args, output, has_start, pairs, row, p == 0};
      if (fit < 1 && pairs.count() > 1) {
        run_slices(work, block);
      } else {
        run_blocks(work, block, end);
      }
      row += grid.pieces[p].lines * grid.width;
    }
  }
}

}  // namespace

const GemmKernel amx::gemm = {kBlock,        kPairRows,       Order::block_bytes,
                              Weights::pack, Weights::unpack, run};

}  // namespace qatx::kernels
