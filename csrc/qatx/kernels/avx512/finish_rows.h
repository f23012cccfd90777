#pragma once

#include "qatx/kernels/avx512/epilogue.h"

// From the accumulators of a tile to its codes or floats, for up to 64 columns at a time.

namespace qatx::kernels::avx512 {
namespace {

// What is the same for all rows and columns.
struct Output {
  // Of `columns` columns in all, each of which sums `products` products.
  Output(const Epilogue& of, const int32_t* first, int64_t columns, int64_t products)
      : epilogue(of),
        start(first),
        requantize(of),
        small(are_small(of, first, columns, products)) {}

  const Epilogue& epilogue;
  const int32_t* start;
  Requantize requantize;
  bool small;  // all results are small
};

// Those of a tile: `count` from `first` on. The tile may be wider, its last ones are padding then.
struct Columns {
  int64_t first;
  int64_t count;
};

// The sums of a row, before their clamp.
template <int kVectors, bool kResidual, bool kStart>
struct RowSums {
  RowSums(const Output& output, Columns columns) : epilogue(output.epilogue) {
    const int64_t column = columns.first;
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      if constexpr (kStart) start[v] = _mm512_loadu_si512(output.start + column + 16 * v);
      scale[v] = _mm512_loadu_ps(epilogue.scale + column + 16 * v);
      bias[v] = _mm512_loadu_ps(epilogue.bias + column + 16 * v);
      there[v] = first_16(columns.count - 16 * v);
    }
    residual = epilogue.residual + (kResidual ? column : 0);
  }

  __m512 of(const __m512i* acc, int64_t row, int v) const {
    const __m512i sum = kStart ? _mm512_add_epi32(acc[v], start[v]) : acc[v];
    const __m512 y = scale_and_bias(sum, scale[v], bias[v]);
    if constexpr (!kResidual) return y;
    const uint8_t* codes = residual + row * epilogue.residual_stride + 16 * v;
    return add_residual(y, _mm512_cvtepu8_epi32(_mm_maskz_loadu_epi8(there[v], codes)), epilogue);
  }

  const Epilogue epilogue;  // a copy, which no store can change
  __m512i start[kVectors];
  __m512 scale[kVectors];
  __m512 bias[kVectors];
  __mmask16 there[kVectors];
  const uint8_t* residual;
};

template <int kVectors, bool kResidual, bool kStart, bool kSmall>
void finish_codes(const __m512i* acc, int64_t row, int64_t rows, const Output& output,
                  Columns columns) {
  const RowSums<kVectors, kResidual, kStart> sums(output, columns);
  const Requantize requantize = output.requantize;
  const __mmask64 there = first_64(columns.count);
  // Lane L of register v holds columns 16 v + 4 L and the next 3.
  const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  uint8_t* out = sums.epilogue.out_u8 + row * sums.epilogue.out_stride + columns.first;
  for (int64_t r = 0; r < rows; ++r, acc += kVectors, out += sums.epilogue.out_stride) {
    __m512i codes[4] = {};
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      const __m512 y = sums.of(acc, row + r, v);
      codes[v] = kSmall ? requantize.without_clamp(y) : requantize(y);
    }
    __m512i packed = requantize.pack_lanes(codes[0], codes[1], codes[2], codes[3]);
    if constexpr (kSmall) packed = requantize.clamp_codes(packed);
    _mm512_mask_storeu_epi8(out, there, _mm512_permutexvar_epi32(order, packed));
  }
}

template <int kVectors, bool kResidual, bool kStart>
void finish_floats(const __m512i* acc, int64_t row, int64_t rows, const Output& output,
                   Columns columns) {
  const RowSums<kVectors, kResidual, kStart> sums(output, columns);
  float* out = sums.epilogue.out_f32 + row * sums.epilogue.out_stride + columns.first;
  for (int64_t r = 0; r < rows; ++r, acc += kVectors, out += sums.epilogue.out_stride) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      _mm512_mask_storeu_ps(out + 16 * v, sums.there[v],
                            clamp(sums.of(acc, row + r, v), sums.epilogue));
    }
  }
}

template <int kVectors, bool kResidual, bool kStart>
void finish_with(const __m512i* acc, int64_t row, int64_t rows, const Output& output,
                 Columns columns) {
  if (output.epilogue.out_u8 == nullptr) {
    finish_floats<kVectors, kResidual, kStart>(acc, row, rows, output, columns);
  } else if (output.small) {
    finish_codes<kVectors, kResidual, kStart, true>(acc, row, rows, output, columns);
  } else {
    finish_codes<kVectors, kResidual, kStart, false>(acc, row, rows, output, columns);
  }
}

// acc: kVectors for each of the rows, which have begun with zero if kStart, else with their start.
// Not inlined: it would make a tile's code long, and its registers few.
template <int kVectors, bool kStart>
[[gnu::noinline]] void finish_rows(const __m512i* acc, int64_t row, int64_t rows,
                                   const Output& output, Columns columns) {
  if (output.epilogue.residual == nullptr) {
    finish_with<kVectors, false, kStart>(acc, row, rows, output, columns);
  } else {
    finish_with<kVectors, true, kStart>(acc, row, rows, output, columns);
  }
}

}  // namespace
}  // namespace qatx::kernels::avx512
