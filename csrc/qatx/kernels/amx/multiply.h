#pragma once

#include <cstdint>

#include "qatx/kernels/amx/pairs.h"
#include "qatx/kernels/amx/slices.h"
#include "qatx/kernels/amx/tiles.h"
#include "qatx/kernels/avx512/finish_rows.h"

// The product of a pair of rows' tiles with a block of weights. What comes before and after it, of
// the sums that were multiplied before, would leave the unit that multiplies tiles idle: it is done
// on the way.

namespace qatx::kernels::amx {
namespace {

// Tiles 0 to 3: sums; 4, 5: input; 6, 7: weights. In memory, the sums of the next pair begin a tile
// later than they need to: while one pair's tiles are loaded, the last one's are stored, and the
// processor takes addresses that are 4096 bytes apart for the same.
static_assert(kBlock == kVectors * kTileColumns);
constexpr int kTileVectors = kTileRows;
constexpr int64_t kPairVectors = (2 * kVectors + 1) * kTileVectors;

// Sums that are complete, and what of the output they are.
struct Complete {
  const __m512i* sums = nullptr;
  const PairRows* rows = nullptr;  // null: there are none
  avx512::Columns columns{};
};

enum class Begin { zero, sums, tiles };

struct Product {
  const Slice& slice;
  const uint8_t* upper;  // rows of the two tiles, `step` bytes apart
  const uint8_t* lower;
  int64_t step;
  const int8_t* weight;  // the block's
  const int8_t* next;    // what is fetched into the second cache, chunk by chunk
  Begin begin;           // with what the tiles of sums do
  __m512i* sums;         // where they go when other ones are multiplied, and come from
};

// Finishes complete sums, some rows with each chunk.
template <class Row>
class Finish {
 public:
  [[gnu::always_inline]] Finish(const Complete& complete, const avx512::Output& output,
                                int64_t chunks)
      : row_(output, complete.columns),
        sums_(complete.sums),
        next_(complete.rows->rows),
        end_(next_ + complete.rows->count),
        share_(ceil_div(complete.rows->count, chunks)) {}

  [[gnu::always_inline]] void some() {
    const PairRows::Row* to = end_ - next_ < share_ ? end_ : next_ + share_;
    for (; next_ != to; ++next_) row_(sums_ + next_->sums, next_->row, next_->out);
  }

 private:
  const Row row_;
  const __m512i* sums_;
  const PairRows::Row* next_;
  const PairRows::Row* end_;
  int64_t share_;
};

struct NothingToFinish {
  NothingToFinish(const Complete& /*complete*/, const avx512::Output& /*output*/,
                  int64_t /*chunks*/) {}
  void some() {}
};

// Makes a tile of sums ready, whose last ones go to `before` if that is not null.
template <int kTile>
[[gnu::always_inline]] inline void begin_tile(const Product& product, __m512i* before) {
  if (before != nullptr) store_tile<kTile>(before + kTile * kTileVectors, kRowBytes);
  if (product.begin == Begin::zero) {
    zero_tile<kTile>();
  } else if (product.begin == Begin::sums) {
    load_tile<kTile>(product.sums + kTile * kTileVectors, kRowBytes);
  }
}

// Adds the products of a slice; kLines lines of what is next are fetched with each chunk.
template <int kRowTiles, int kColumnTiles, int kLines, class Finish>
void multiply(const Product& product, __m512i* before, const Complete& complete,
              const avx512::Output& output) {
  Finish finish(complete, output, product.slice.count);
  const int64_t ahead = product.next - product.weight;
  const auto chunk = [&](int64_t i, bool first) __attribute__((always_inline)) {
    const Chunk& at = product.slice.chunks[i];
    const int8_t* weight = product.weight + at.weight;
#pragma GCC unroll 32
    for (int line = 0; line < kLines; ++line) {
      _mm_prefetch(weight + ahead + line * kLineBytes, _MM_HINT_T1);
    }
    load_tile<4>(product.upper + at.input, product.step);
    load_tile<6>(weight, kRowBytes);
    if (first) begin_tile<0>(product, before);
    multiply_tiles<0, 4, 6>();
    if constexpr (kColumnTiles == 2) {
      load_tile<7>(weight + kTileBytes, kRowBytes);
      if (first) begin_tile<1>(product, before);
      multiply_tiles<1, 4, 7>();
    }
    if constexpr (kRowTiles == 2) {
      load_tile<5>(product.lower + at.input, product.step);
      if (first) begin_tile<2>(product, before);
      multiply_tiles<2, 5, 6>();
      if constexpr (kColumnTiles == 2) {
        if (first) begin_tile<3>(product, before);
        multiply_tiles<3, 5, 7>();
      }
    }
    if (first) settle_memory();
    finish.some();
  };
  chunk(0, true);
  for (int64_t i = 1; i < product.slice.count; ++i) chunk(i, false);
}

template <int kRowTiles, int kColumnTiles>
void store(__m512i* sums) {
  store_tile<0>(sums + 0 * kTileVectors, kRowBytes);
  if constexpr (kColumnTiles == 2) store_tile<1>(sums + 1 * kTileVectors, kRowBytes);
  if constexpr (kRowTiles == 2) store_tile<2>(sums + 2 * kTileVectors, kRowBytes);
  if constexpr (kRowTiles * kColumnTiles == 4) store_tile<3>(sums + 3 * kTileVectors, kRowBytes);
  settle_memory();
}

// What is finished on the way. Everything else is finished before the next product.
template <bool kStart, bool kResidual>
using TileSums = avx512::Sums<kVectors, kTileVectors, kStart, kResidual>;
template <bool kStart, bool kResidual, avx512::Clamp kClamp>
using FinishCodes = Finish<avx512::CodeRow<TileSums<kStart, kResidual>, kClamp>>;
using FinishFloats = Finish<avx512::FloatRow<TileSums<true, false>>>;

// An index of what a product can finish.
enum Finishing : int { kNothing, kFloats, kCodes };
constexpr int kFinishings = kCodes + 8;

inline int finishing_of(const avx512::Output& output, bool start) {
  const bool residual = output.epilogue.residual != nullptr;
  if (output.epilogue.out_u8 == nullptr) return residual ? kNothing : kFloats;
  if (output.clamp == avx512::Clamp::results) return kNothing;
  const bool clamp = output.clamp == avx512::Clamp::codes;
  return kCodes + (start ? 4 : 0) + (residual ? 2 : 0) + (clamp ? 1 : 0);
}

// The functions for a number of tiles.
struct Tiles {
  using Multiply = void (*)(const Product&, __m512i*, const Complete&, const avx512::Output&);

  Multiply multiply[kFinishings];
  void (*store)(__m512i*);
};

template <int kRowTiles, int kColumnTiles, int kLines, class... Finish>
constexpr Tiles kTilesWith = {{multiply<kRowTiles, kColumnTiles, kLines, Finish>...},
                              store<kRowTiles, kColumnTiles>};

template <int kRowTiles, int kColumnTiles, int kLines>
constexpr Tiles kTiles = kTilesWith<kRowTiles, kColumnTiles, kLines, NothingToFinish, FinishFloats,
                                    FinishCodes<false, false, avx512::Clamp::nothing>,
                                    FinishCodes<false, false, avx512::Clamp::codes>,
                                    FinishCodes<false, true, avx512::Clamp::nothing>,
                                    FinishCodes<false, true, avx512::Clamp::codes>,
                                    FinishCodes<true, false, avx512::Clamp::nothing>,
                                    FinishCodes<true, false, avx512::Clamp::codes>,
                                    FinishCodes<true, true, avx512::Clamp::nothing>,
                                    FinishCodes<true, true, avx512::Clamp::codes>>;

// For as many tiles of rows and columns, and lines that are fetched with each chunk.
inline const Tiles& tiles_for(int64_t row_tiles, int64_t column_tiles, int64_t lines) {
  if (row_tiles == 1) return column_tiles == 1 ? kTiles<1, 1, 0> : kTiles<1, 2, 0>;
  if (column_tiles == 1) return kTiles<2, 1, 0>;
  return lines == 0    ? kTiles<2, 2, 0>
         : lines == 8  ? kTiles<2, 2, 8>
         : lines == 16 ? kTiles<2, 2, 16>
                       : kTiles<2, 2, 32>;
}

}  // namespace
}  // namespace qatx::kernels::amx
