#pragma once

#include <cstdint>
#include <new>

#include "qatx/kernels/amx/tiles.h"
#include "qatx/kernels/avx512/mask.h"
#include "qatx/kernels/indirect_gemm.h"
#include "qatx/kernels/window_cursor.h"

namespace qatx::kernels::amx {
namespace {

constexpr std::align_val_t kAlignment{64};

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// The input of a layer as a matrix: a row for each output pixel, its taps one after the other. A
// tile takes 16 rows and a chunk of 64 bytes of them.
//
// Segments are parts of rows for which tiles find their rows in the input itself, where 16
// neighbours are equally far from each other there: a tap, or, where chunks would reach from one
// tap into the next, all taps together.
struct Shape {
  explicit Shape(const GemmArgs& args)
      : bytes(args.window.taps * args.k),
        chunks(ceil_div(bytes, kRowBytes)),
        segments(args.k % kRowBytes == 0 ? args.window.taps : 1),
        segment_taps(args.window.taps / segments),
        segment_chunks(chunks / segments) {}

  int64_t bytes;  // of a row
  int64_t chunks;
  int64_t segments;
  int64_t segment_taps;
  int64_t segment_chunks;
};

// 16 rows of a segment.
struct Source {
  const uint8_t* first;
  int64_t stride;
};

// Copies taps, one behind the other. Taps that lie side by side are copied together; those of rows
// that are no border of the image do so in the same places, so these are looked for only once.
class RowCopier {
 public:
  void copy(const GemmArgs& args, const WindowRow& row, int64_t tap, int64_t taps, uint8_t* to) {
    if (tap == 0 && taps == args.window.taps && taps <= kMostTaps && taps > 1) {
      if (row.offsets()[0] >= 0 && runs_ > 0 && has_pattern(row.offsets(), taps)) {
        const uint8_t* from = row.image() + row.offsets()[0];
        for (int64_t run = 0; run < runs_; ++run)
          to = copy_run(from + begin_[run], bytes_[run], to);
        return;
      }
      if (runs_ == 0) learn(args, row);
    }
    for (const int64_t end = tap + taps; tap < end;) {
      const int64_t together = side_by_side(args, row, tap, end);
      to = copy_run(row.tap(tap), together * args.k, to);
      tap += together;
    }
  }

 private:
  static constexpr int64_t kMostTaps = 64;

  // Whole cache lines: what follows is overwritten, or not used.
  static uint8_t* copy_run(const uint8_t* from, int64_t bytes, uint8_t* to) {
    for (int64_t i = 0; i < bytes; i += kRowBytes) {
      _mm512_storeu_si512(to + i, _mm512_loadu_si512(from + i));
    }
    return to + bytes;
  }

  // How many taps from `tap` on, before `end`, lie side by side.
  static int64_t side_by_side(const GemmArgs& args, const WindowRow& row, int64_t tap,
                              int64_t end) {
    const uint8_t* first = row.tap(tap);
    int64_t count = 1;
    while (tap + count < end && row.tap(tap + count) == first + count * args.k) ++count;
    return count;
  }

  // Remembers a row, if none of its taps is padding.
  void learn(const GemmArgs& args, const WindowRow& row) {
    const int64_t taps = args.window.taps;
    for (int64_t t = 0; t < taps; ++t) {
      if (row.is_padding(t)) return;
    }
    const int32_t first = row.offsets()[0];
    for (int64_t t = 0; t < taps; ++t) distance_[t] = row.offsets()[t] - first;
    for (int64_t t = 0; t < taps;) {
      const int64_t together = side_by_side(args, row, t, taps);
      begin_[runs_] = distance_[t];
      bytes_[runs_++] = together * args.k;
      t += together;
    }
  }

  bool has_pattern(const int32_t* offsets, int64_t taps) const {
    const __m512i first = _mm512_set1_epi32(offsets[0]);
    for (int64_t t = 0; t < taps; t += 16) {
      const __mmask16 there = avx512::first_16(taps - t);
      const __m512i distance =
          _mm512_sub_epi32(_mm512_maskz_loadu_epi32(there, offsets + t), first);
      if (_mm512_mask_cmpneq_epi32_mask(there, distance, _mm512_loadu_si512(distance_ + t)) != 0) {
        return false;
      }
    }
    return true;
  }

  int64_t runs_ = 0;
  int32_t distance_[kMostTaps] = {};  // of each tap from the first, of rows that are no border
  int64_t begin_[kMostTaps];          // of each run, from the first tap
  int64_t bytes_[kMostTaps];
};

// A number of rows, found or copied. What is read or copied behind the end of a row meets weights
// that are zero.
class Panel {
 public:
  // Makes place for `tiles` times 16 rows. Throws std::bad_alloc.
  Panel(const Shape& shape, int64_t tiles)
      : shape_(shape),
        // A line more than needed: 16 rows do not fall into the same few sets of a cache, and the
        // last copy of a row may go beyond its end.
        copied_stride_(shape.segment_chunks * kRowBytes + kRowBytes),
        tile_bytes_(kTileRows * copied_stride_) {
    const auto size = static_cast<size_t>(tiles * shape.segments);
    const size_t copies = size * static_cast<size_t>(tile_bytes_);
    memory_ = ::operator new(copies + size * sizeof(Source), kAlignment);
    copies_ = static_cast<uint8_t*>(memory_);
    sources_ = reinterpret_cast<Source*>(copies_ + copies);
  }
  Panel(const Panel&) = delete;
  Panel& operator=(const Panel&) = delete;
  ~Panel() { ::operator delete(memory_, kAlignment); }

  // Takes `rows` rows from the cursor on. Rows that are missing in the last tile are that of the
  // last row.
  void fill(const GemmArgs& args, WindowCursor& cursor, int64_t rows) {
    for (int64_t tile = 0; tile * kTileRows < rows; ++tile) {
      WindowRow window[kTileRows];
      for (int64_t r = 0; r < kTileRows; ++r) {
        if (tile * kTileRows + r < rows) {
          window[r] = cursor.row();
          cursor.advance();
        } else {
          window[r] = window[r - 1];
        }
      }
      for (int64_t s = 0; s < shape_.segments; ++s) {
        sources_[tile * shape_.segments + s] = source(args, window, tile, s);
      }
    }
  }

  Source at(int64_t tile, int64_t segment) const {
    return sources_[tile * shape_.segments + segment];
  }

 private:
  Source source(const GemmArgs& args, const WindowRow (&window)[kTileRows], int64_t tile,
                int64_t segment) {
    if (shape_.segment_taps == 1) {
      const uint8_t* rows[kTileRows];
      for (int64_t r = 0; r < kTileRows; ++r) rows[r] = window[r].tap(segment);
      const int64_t stride = rows[1] - rows[0];
      bool even = true;
      for (int64_t r = 2; r < kTileRows; ++r) even &= rows[r] - rows[r - 1] == stride;
      if (even) return {rows[0], stride};
    }
    uint8_t* copy = copies_ + (tile * shape_.segments + segment) * tile_bytes_;
    for (int64_t r = 0; r < kTileRows; ++r) {
      row_copier_.copy(args, window[r], segment * shape_.segment_taps, shape_.segment_taps,
                       copy + r * copied_stride_);
    }
    return {copy, copied_stride_};
  }

  const Shape& shape_;
  int64_t copied_stride_;
  int64_t tile_bytes_;
  RowCopier row_copier_;
  void* memory_;
  uint8_t* copies_;
  Source* sources_;
};

}  // namespace
}  // namespace qatx::kernels::amx
