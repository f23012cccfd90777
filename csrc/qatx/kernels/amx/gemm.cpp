#include "qatx/kernels/gemm.h"

#include "qatx/kernels/amx/multiply.h"
#include "qatx/kernels/amx/pairs.h"
#include "qatx/kernels/amx/slices.h"
#include "qatx/kernels/amx/tiles.h"
#include "qatx/kernels/avx512/finish_rows.h"
#include "qatx/kernels/ceil_div.h"
#include "qatx/kernels/implementations.h"

namespace qatx::kernels {
namespace {

using namespace amx;

// Pairs of rows that take a slice one after the other.
constexpr int64_t kPairsTogether = 4;

bool are_zero(const int32_t* values, int64_t count) {
  int32_t any = 0;
  for (int64_t i = 0; i < count; ++i) any |= values[i];
  return any == 0;
}

// Multiplies one product after the other. While one is multiplied, the sums of the last one are
// stored and, if they are complete, finished.
class Pipeline {
 public:
  explicit Pipeline(const GemmArgs& args)
      : output_(args.epilogue, args.start, args.n, args.grid.segments * args.k),
        finishing_(finishing_of(output_, !are_zero(args.start, args.n))) {}

  void multiply(const Tiles& tiles, const Product& product) {
    if (sums_ != nullptr && tiles.store != store_) store();
    if (complete_.rows != nullptr && finishing_ == kNothing) flush();
    const int finishing = complete_.rows != nullptr ? finishing_ : kNothing;
    __m512i* before = product.begin == Begin::tiles ? nullptr : sums_;
    tiles.multiply[finishing](product, before, complete_, output_);
    complete_.rows = nullptr;
    store_ = tiles.store;
    sums_ = product.sums;
  }

  // Says which rows the next products are of; those of the last ones stay until they are finished.
  void begin_pair(const Pairs& pairs, int64_t pair) {
    rows_ = rows_ == &both_[0] ? &both_[1] : &both_[0];
    pairs.list(pair, *rows_);
  }

  // The sums of the last product are complete.
  void complete(avx512::Columns columns) { complete_ = {sums_, rows_, columns}; }

  // Has everything stored and finished.
  void flush() {
    if (sums_ != nullptr) store();
    if (complete_.rows == nullptr) return;
    const PairRows& rows = *complete_.rows;
    const int64_t stride = output_.epilogue.out_stride;
    for (int64_t i = 0; i < rows.count;) {
      const auto [sums, row, out] = rows.rows[i];
      int64_t count = 1;
      while (i + count < rows.count && rows.rows[i + count].sums == sums + count &&
             rows.rows[i + count].out == out + count * stride) {
        ++count;
      }
      avx512::finish_rows<kVectors, kTileVectors, true>(complete_.sums + sums, 1, row, count, out,
                                                        output_, complete_.columns);
      i += count;
    }
    complete_.rows = nullptr;
  }

 private:
  void store() {
    store_(sums_);
    sums_ = nullptr;
  }

  const avx512::Output output_;
  const int finishing_;
  PairRows both_[2];
  PairRows* rows_ = nullptr;  // one of them
  Complete complete_;
  __m512i* sums_ = nullptr;  // of the last product, if it still is in its tiles
  void (*store_)(__m512i*) = nullptr;
};

// What computes a piece.
struct Work {
  const GemmArgs& args;
  const Slices& slices;
  const Pairs& pairs;
  bool fetch;  // what comes next of the weights, while they are multiplied
  Pipeline& pipeline;

  const int8_t* weight(int64_t block) const {
    return static_cast<const int8_t*>(args.weight) +
           (block - args.first_block) * Order::block_bytes(args.grid.segments, args.k);
  }
  // How many lines of each chunk of weights a pair fetches: the first ones share them.
  int64_t lines(int64_t pair) const {
    constexpr int64_t kLines = kChunkBytes / kLineBytes;
    const int64_t sharing = pairs.count() >= 4 ? 4 : pairs.count() >= 2 ? 2 : 1;
    return fetch && pair < sharing ? kLines / sharing : 0;
  }
  avx512::Columns columns(int64_t block) const {
    const int64_t left = args.n - block * kBlock;
    return {block * kBlock, left < kBlock ? left : kBlock};
  }

  // `next`: what is fetched by all pairs together.
  void multiply(int64_t pair, int64_t block, const Slice& slice, const int8_t* next, Begin begin,
                __m512i* sums) const {
    const Tiles& tiles = tiles_for(pairs.has_lower(pair) ? 2 : 1,
                                   columns(block).count > kTileColumns ? 2 : 1, lines(pair));
    pipeline.multiply(tiles, {slice, pairs.upper(pair), pairs.lower(pair), args.grid.step,
                              weight(block), next + pair * lines(pair) * kLineBytes, begin, sums});
  }
};

// Blocks whose weights fit the first cache together, for one pair of rows after the other: so whole
// cache lines of output are written.
void run_blocks(const Work& work, const Slice& slice, int64_t block_begin, int64_t block_end,
                __m512i* sums) {
  for (int64_t pair = 0; pair < work.pairs.count(); ++pair) {
    work.pipeline.begin_pair(work.pairs, pair);
    for (int64_t block = block_begin; block < block_end; ++block) {
      work.multiply(pair, block, slice, work.weight(block + block_end - block_begin), Begin::zero,
                    sums);
      work.pipeline.complete(work.columns(block));
    }
  }
}

// A block whose weights do not fit, slice by slice for some pairs, the sums of which stay in the
// first cache meanwhile: the second one is too slow to feed the tiles. Those of one pair stay in
// the tiles.
void run_slices(const Work& work, int64_t block, __m512i* sums) {
  const int64_t slices = work.slices.count();
  const int64_t block_bytes = work.weight(block + 1) - work.weight(block);
  Slice slice;
  for (int64_t first = 0; first < work.pairs.count(); first += kPairsTogether) {
    const int64_t left = work.pairs.count() - first;
    const int64_t end = first + (left < kPairsTogether ? left : kPairsTogether);
    const bool alone = end == first + 1;
    for (int64_t s = 0; s < slices; ++s) {
      work.slices.list(s, slice);
      const bool last = s + 1 == slices;
      const int64_t next = last ? block_bytes : work.slices.weight(s + 1);
      const int64_t ahead = alone ? block_bytes : next - work.slices.weight(s);
      const Begin begin = s == 0 ? Begin::zero : alone ? Begin::tiles : Begin::sums;
      for (int64_t pair = first; pair < end; ++pair) {
        if (last) work.pipeline.begin_pair(work.pairs, pair);
        work.multiply(pair, block, slice, work.weight(block) + ahead, begin,
                      sums + (pair - first) * kPairVectors);
        if (last) work.pipeline.complete(work.columns(block));
      }
    }
  }
}

void run(const GemmArgs& args, int64_t block_begin, int64_t block_end) {
  UseTiles tiles;
  const Grid& grid = args.grid;
  const Slices slices(grid, args.k);
  Slice all;
  if (slices.count() == 1) slices.list(0, all);
  const int64_t fit = kFirstCacheBytes / Order::block_bytes(grid.segments, args.k);
  const int64_t together = fit < 1 ? 1 : fit;
  __m512i sums[kPairsTogether * kPairVectors];
  Pipeline pipeline(args);
  settle_memory();
  for (int64_t block = block_begin; block < block_end; block += together) {
    const int64_t end = block + together < block_end ? block + together : block_end;
    int64_t row = 0;
    for (int64_t p = 0; p < grid.piece_count; ++p) {
      const Pairs pairs(grid, args.epilogue, grid.pieces[p], row);
      if (tiles.rows() != pairs.tile_rows()) {
        pipeline.flush();
        tiles.set_rows(pairs.tile_rows());
      }
      // The weights of a large layer come from memory.
      const Work work{args, slices, pairs, p == 0, pipeline};
      if (slices.count() == 1) {
        run_blocks(work, all, block, end, sums);
      } else {
        run_slices(work, block, sums);
      }
      row += grid.pieces[p].lines * grid.width;
    }
  }
  pipeline.flush();
}

}  // namespace

const GemmKernel amx::gemm = {kBlock,        kPairRows,       kLineBytes, Order::block_bytes,
                              Weights::pack, Weights::unpack, run};

}  // namespace qatx::kernels
