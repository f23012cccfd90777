#pragma once

#include <cstdint>

#include "qatx/kernels/amx/tiles.h"
#include "qatx/kernels/ceil_div.h"
#include "qatx/kernels/grid.h"
#include "qatx/kernels/packing.h"

// In which order rows meet their weights.

namespace qatx::kernels::amx {
namespace {

// Weights are packed as [block][segment][chunk of 64 bytes][tile of 16 columns], filled up with
// zeros. A tile holds [group of 4 bytes of the chunk][column][4].
constexpr int64_t kTileColumns = 16;
constexpr int64_t kBlock = 2 * kTileColumns;
constexpr int64_t kGroup = 4;
constexpr int64_t kLineBytes = 64;
// Of the weights of a block, for 64 bytes of a row.
constexpr int64_t kChunkBytes = 2 * kTileBytes;
// What weights may take of the first cache: rows that overlap, as those of a window do, leave more.
constexpr int64_t kFirstCacheBytes = 24 * 1024;
constexpr int64_t kFirstCacheBytesOfWindows = 40 * 1024;
// That a slice has at most.
constexpr int64_t kMostChunks = 2 * kFirstCacheBytesOfWindows / kChunkBytes;

struct ChunkOrder {
  static constexpr int64_t kRun = kGroup;

  template <class At>
  static void visit(const At& at) {
    for (int64_t tile = 0; tile < kBlock; tile += kTileColumns) {
      for (int64_t group = 0; group < kRowBytes; group += kGroup) {
        for (int64_t c = tile; c < tile + kTileColumns; ++c) at(c, group);
      }
    }
  }
};
using Order = BlockOrder<kBlock, kRowBytes, ChunkOrder>;
using Weights = GemmPacking<Order>;
static_assert(kChunkBytes == kBlock * kRowBytes);

// Up to 64 bytes of a row, counted from the row's begin, and their weights, from the block's.
struct Chunk {
  int64_t input;
  int64_t weight;
};

// Some of what an output sums.
struct Slice {
  int64_t count = 0;
  Chunk chunks[kMostChunks];
};

// All that an output sums, in slices whose weights leave room in the first cache. Taps that lie
// side by side, as rows do, are told apart, and a slice has the same bytes of each: they are the
// same memory for other rows.
class Slices {
 public:
  Slices(const Grid& grid, int64_t k)
      : grid_(grid),
        taps_(rows_are_taps(grid, k) ? k / grid.step : 1),
        chunks_(ceil_div(k / taps_, kRowBytes)) {
    const bool overlap = grid.step < k || grid.segments > 1;
    const int64_t fit = (overlap ? kFirstCacheBytesOfWindows : kFirstCacheBytes) / kChunkBytes;
    const int64_t segment = taps_ * chunks_;
    if (segment <= fit) {
      slice_segments_ = ceil_div(grid.segments, ceil_div(grid.segments, fit / segment));
      slice_chunks_ = chunks_;
    } else {
      slice_chunks_ = ceil_div(chunks_, ceil_div(segment, fit));
    }
    across_ = ceil_div(chunks_, slice_chunks_);
    count_ = ceil_div(grid.segments, slice_segments_) * across_;
  }

  int64_t count() const { return count_; }

  // Where those of a slice begin among the weights of a block.
  int64_t weight(int64_t i) const { return weight_of(segment_of(i), 0, chunk_of(i)); }

  void list(int64_t i, Slice& slice) const {
    const int64_t segment = segment_of(i);
    const int64_t chunk = chunk_of(i);
    slice.count = 0;
    for (int64_t s = segment; s < segment + slice_segments_ && s < grid_.segments; ++s) {
      for (int64_t tap = 0; tap < taps_; ++tap) {
        for (int64_t c = chunk; c < chunk + slice_chunks_ && c < chunks_; ++c) {
          slice.chunks[slice.count++] = {grid_.offsets[s] + (tap * chunks_ + c) * kRowBytes,
                                         weight_of(s, tap, c)};
        }
      }
    }
  }

 private:
  // Few taps, so that a slice has at most kMostChunks.
  static bool rows_are_taps(const Grid& grid, int64_t k) {
    return grid.step > 0 && k % grid.step == 0 && grid.step % kRowBytes == 0 &&
           k / grid.step <= kMostChunks / 2;
  }

  // What a slice begins with.
  int64_t segment_of(int64_t i) const { return i / across_ * slice_segments_; }
  int64_t chunk_of(int64_t i) const { return i % across_ * slice_chunks_; }
  int64_t weight_of(int64_t segment, int64_t tap, int64_t chunk) const {
    return ((segment * taps_ + tap) * chunks_ + chunk) * kChunkBytes;
  }

  const Grid& grid_;
  int64_t taps_;    // of a segment
  int64_t chunks_;  // of a tap
  int64_t slice_segments_ = 1;
  int64_t slice_chunks_;  // of a tap
  int64_t across_;        // slices of a segment
  int64_t count_;
};

}  // namespace
}  // namespace qatx::kernels::amx
