#pragma once

#include "qatx/kernels/avx512/epilogue.h"

// From the accumulators of a tile to its codes or floats, for up to 64 columns at a time.

namespace qatx::kernels::avx512 {
namespace {

// Whether a sum of the epilogue can be NaN: not where all terms are far from infinite.
inline bool may_be_nan(const Epilogue& epilogue, int64_t column, int64_t columns) {
  const __m512 most_scale = _mm512_set1_ps(0x1p90f);
  const __m512 most_bias = _mm512_set1_ps(0x1p120f);
  __mmask16 small = 0xffff;
  for (int64_t c = 0; c < columns; c += 16) {
    const __mmask16 there = first_16(columns - c);
    const __m512 scale = _mm512_maskz_loadu_ps(there, epilogue.scale + column + c);
    const __m512 bias = _mm512_maskz_loadu_ps(there, epilogue.bias + column + c);
    small &= _mm512_cmp_ps_mask(_mm512_abs_ps(scale), most_scale, _CMP_LE_OQ) &
             _mm512_cmp_ps_mask(_mm512_abs_ps(bias), most_bias, _CMP_LE_OQ);
  }
  const bool small_residual = epilogue.residual == nullptr || epilogue.residual_scale <= 0x1p110f;
  return small != 0xffff || !small_residual;
}

// Everything of a tile's epilogue that is the same for all its rows.
struct Output {
  Output(const Epilogue& of, int64_t first, int64_t count)
      : epilogue(of),
        requantize(of),
        column(first),
        columns(count),
        no_nan(!may_be_nan(of, first, count)) {}

  const Epilogue& epilogue;
  Requantize requantize;
  int64_t column;   // the first one
  int64_t columns;  // how many there are, at most those of a block: the others are padding
  bool no_nan;      // no sum can be NaN
};

// The sums of a row, before their clamp.
template <int kVectors, bool kResidual>
struct RowSums {
  RowSums(const Epilogue& of, const Output& output) : epilogue(of) {
    const int64_t column = output.column;
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      scale[v] = _mm512_loadu_ps(epilogue.scale + column + 16 * v);
      bias[v] = _mm512_loadu_ps(epilogue.bias + column + 16 * v);
      there[v] = first_16(output.columns - 16 * v);
    }
    residual = epilogue.residual + (kResidual ? column : 0);
  }

  __m512 of(const __m512i* acc, int64_t row, int v) const {
    const __m512 y = scale_and_bias(acc[v], scale[v], bias[v]);
    if constexpr (!kResidual) return y;
    const uint8_t* codes = residual + row * epilogue.residual_stride + 16 * v;
    return add_residual(y, _mm512_cvtepu8_epi32(_mm_maskz_loadu_epi8(there[v], codes)), epilogue);
  }

  const Epilogue epilogue;  // a copy, which no store can change
  __m512 scale[kVectors];
  __m512 bias[kVectors];
  __mmask16 there[kVectors];
  const uint8_t* residual;
};

template <int kVectors, bool kResidual, bool kNoNan>
void finish_codes(const __m512i* acc, int64_t row, int64_t rows, const Output& output) {
  const RowSums<kVectors, kResidual> sums(output.epilogue, output);
  const Requantize requantize = output.requantize;
  const __mmask64 there = first_64(output.columns);
  // Lane L of register v holds columns 16 v + 4 L and the next 3.
  const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  uint8_t* out = sums.epilogue.out_u8 + row * sums.epilogue.out_stride + output.column;
  for (int64_t r = 0; r < rows; ++r, acc += kVectors, out += sums.epilogue.out_stride) {
    __m512i codes[4] = {};
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      codes[v] = requantize.template steps<kNoNan>(sums.of(acc, row + r, v));
    }
    const __m512i packed = requantize.pack_lanes(codes[0], codes[1], codes[2], codes[3]);
    _mm512_mask_storeu_epi8(out, there, _mm512_permutexvar_epi32(order, packed));
  }
}

template <int kVectors, bool kResidual>
void finish_floats(const __m512i* acc, int64_t row, int64_t rows, const Output& output) {
  const RowSums<kVectors, kResidual> sums(output.epilogue, output);
  float* out = sums.epilogue.out_f32 + row * sums.epilogue.out_stride + output.column;
  for (int64_t r = 0; r < rows; ++r, acc += kVectors, out += sums.epilogue.out_stride) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      _mm512_mask_storeu_ps(out + 16 * v, sums.there[v],
                            clamp(sums.of(acc, row + r, v), sums.epilogue));
    }
  }
}

template <int kVectors, bool kResidual>
void finish_with(const __m512i* acc, int64_t row, int64_t rows, const Output& output) {
  if (output.epilogue.out_u8 == nullptr) {
    finish_floats<kVectors, kResidual>(acc, row, rows, output);
  } else if (output.no_nan) {
    finish_codes<kVectors, kResidual, true>(acc, row, rows, output);
  } else {
    finish_codes<kVectors, kResidual, false>(acc, row, rows, output);
  }
}

// acc: kVectors for each of the rows. Not inlined: it would make a tile's code long, and its
// registers few.
template <int kVectors>
[[gnu::noinline]] void finish_rows(const __m512i* acc, int64_t row, int64_t rows,
                                   const Output& output) {
  if (output.epilogue.residual == nullptr) {
    finish_with<kVectors, false>(acc, row, rows, output);
  } else {
    finish_with<kVectors, true>(acc, row, rows, output);
  }
}

}  // namespace
}  // namespace qatx::kernels::avx512
