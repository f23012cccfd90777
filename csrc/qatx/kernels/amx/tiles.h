#pragma once

#include <cstdint>

#include "qatx/kernels/avx512/intrinsics.h"

namespace qatx::kernels::amx {
namespace {

// A tile register: 16 rows of 64 bytes.
constexpr int64_t kTileRows = 16;
constexpr int64_t kRowBytes = 64;
constexpr int64_t kTileBytes = kTileRows * kRowBytes;

// What was written so far is in memory, and what is read from here on comes from there: GCC does
// not know what tile instructions read and write.
inline void settle_memory() { asm volatile("" ::: "memory"); }

// The instructions on tile kTile. Rows in memory are `stride` bytes apart.
template <int kTile>
inline void load_tile(const void* rows, int64_t stride) {
  asm volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(rows), "r"(stride), "i"(kTile));
}

template <int kTile>
inline void store_tile(void* rows, int64_t stride) {
  asm volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(rows), "r"(stride), "i"(kTile));
}

template <int kTile>
inline void zero_tile() {
  asm volatile("tilezero %%tmm%c0" ::"i"(kTile));
}

// kSums += kCodes, unsigned, times kWeights, signed.
template <int kSums, int kCodes, int kWeights>
inline void multiply_tiles() {
  asm volatile("tdpbusd %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(kSums), "i"(kCodes), "i"(kWeights));
}

struct alignas(64) TileConfig {
  uint8_t palette = 0;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};
};

// Sets the eight tiles up: 0 to 5, accumulators and input, for a number of rows; 6 and 7, weights,
// as whole ones. Gives back what was there: another library may have set the tiles up for the whole
// of a thread.
class UseTiles {
 public:
  UseTiles() {
    _tile_storeconfig(&before_);
    config_.palette = 1;
    for (int i = 0; i < 8; ++i) {
      config_.row_bytes[i] = kRowBytes;
      config_.rows[i] = kTileRows;
    }
    load(config_);
  }
  UseTiles(const UseTiles&) = delete;
  UseTiles& operator=(const UseTiles&) = delete;
  ~UseTiles() {
    if (before_.palette == 0) {
      _tile_release();
    } else {
      load(before_);
    }
  }

  int64_t rows() const { return config_.rows[0]; }
  void set_rows(int64_t rows) {
    for (int i = 0; i < 6; ++i) config_.rows[i] = static_cast<uint8_t>(rows);
    load(config_);
  }

 private:
  // Through a pointer that GCC knows nothing of: it would leave out fields that nothing reads.
  static void load(TileConfig& config) {
    TileConfig* from = &config;
    asm volatile("" : "+r"(from)::"memory");
    _tile_loadconfig(from);
  }

  TileConfig config_;
  TileConfig before_;
};

}  // namespace
}  // namespace qatx::kernels::amx
