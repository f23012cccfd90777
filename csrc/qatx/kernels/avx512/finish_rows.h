#pragma once

#include "qatx/kernels/avx512/epilogue.h"

// From the accumulators of a tile to its codes or floats, for up to 64 columns at a time.

namespace qatx::kernels::avx512 {
namespace {

// What has to be clamped: codes only where all results are small, and nothing if, besides, all
// codes are allowed.
enum class Clamp { nothing, codes, results };

// What is the same for all rows and columns.
struct Output {
  // Of `columns` columns in all, each of which sums `products` products from its start on.
  Output(const Epilogue& of, const int32_t* first, int64_t columns, int64_t products)
      : epilogue(of),
        start(first),
        requantize(of),
        clamp(!are_small(of, first, columns, products) ? Clamp::results
              : requantize.allows_all()                ? Clamp::nothing
                                                       : Clamp::codes) {}

  const Epilogue& epilogue;
  const int32_t* start;
  Requantize requantize;
  Clamp clamp;
};

// Those of a tile: `count` from `first` on. The tile may be wider, its last ones are padding then.
struct Columns {
  int64_t first;
  int64_t count;
};

// What is known of the sums of a tile: how many vectors a row has and how far apart they are,
// whether their start has still to be added, and whether something else has.
template <int kCount, int kDistance, bool kAddStart, bool kAddResidual>
struct Sums {
  static constexpr int kVectors = kCount;
  static constexpr int kApart = kDistance;
  static constexpr bool kStart = kAddStart;
  static constexpr bool kResidual = kAddResidual;
};

// Those of a row, before their clamp.
template <class Sums>
struct RowSums {
  static constexpr int kVectors = Sums::kVectors;

  RowSums(const Output& output, Columns columns) : epilogue(output.epilogue) {
    const int64_t column = columns.first;
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      if constexpr (Sums::kStart) start[v] = _mm512_loadu_si512(output.start + column + 16 * v);
      scale[v] = _mm512_loadu_ps(epilogue.scale + column + 16 * v);
      bias[v] = _mm512_loadu_ps(epilogue.bias + column + 16 * v);
      there[v] = first_16(columns.count - 16 * v);
    }
    residual = epilogue.residual + (Sums::kResidual ? column : 0);
  }

  __m512 of(const __m512i* acc, int64_t row, int v) const {
    __m512i sum = acc[v * Sums::kApart];
    if constexpr (Sums::kStart) sum = _mm512_add_epi32(sum, start[v]);
    const __m512 y = scale_and_bias(sum, scale[v], bias[v]);
    if constexpr (!Sums::kResidual) return y;
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

// Writes the codes of a row, which begins at element `out` of the output.
template <class Sums, Clamp kClamp>
class CodeRow {
 public:
  [[gnu::always_inline]] CodeRow(const Output& output, Columns columns)
      : sums_(output, columns),
        requantize_(output.requantize),
        there_(first_64(columns.count)),
        out_(output.epilogue.out_u8 + columns.first) {}

  [[gnu::always_inline]] void operator()(const __m512i* acc, int64_t row, int64_t out) const {
    // Lane L of register v holds columns 16 v + 4 L and the next 3.
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    __m512i codes[4] = {};
#pragma GCC unroll 4
    for (int v = 0; v < Sums::kVectors; ++v) {
      const __m512 y = sums_.of(acc, row, v);
      codes[v] = kClamp == Clamp::results ? requantize_(y) : requantize_.without_clamp(y);
    }
    __m512i packed = requantize_.pack_lanes(codes[0], codes[1], codes[2], codes[3]);
    if constexpr (kClamp == Clamp::codes) packed = requantize_.clamp_codes(packed);
    packed = _mm512_permutexvar_epi32(order, packed);
    if constexpr (Sums::kVectors > 2) {
      _mm512_mask_storeu_epi8(out_ + out, there_, packed);
    } else {  // no wider than it has to be: it would reach into the next cache line
      _mm256_mask_storeu_epi8(out_ + out, static_cast<__mmask32>(there_),
                              _mm512_castsi512_si256(packed));
    }
  }

 private:
  const RowSums<Sums> sums_;
  const Requantize requantize_;
  const __mmask64 there_;
  uint8_t* const out_;
};

// Writes the floats of a row.
template <class Sums>
class FloatRow {
 public:
  [[gnu::always_inline]] FloatRow(const Output& output, Columns columns)
      : sums_(output, columns), out_(output.epilogue.out_f32 + columns.first) {}

  [[gnu::always_inline]] void operator()(const __m512i* acc, int64_t row, int64_t out) const {
    float* to = out_ + out;
#pragma GCC unroll 4
    for (int v = 0; v < Sums::kVectors; ++v) {
      _mm512_mask_storeu_ps(to + 16 * v, sums_.there[v],
                            clamp(sums_.of(acc, row, v), sums_.epilogue));
    }
  }

 private:
  const RowSums<Sums> sums_;
  float* const out_;
};

template <class Row>
void finish_each(const __m512i* acc, int64_t acc_stride, int64_t row, int64_t rows, int64_t out,
                 const Output& output, Columns columns) {
  const Row finish(output, columns);
  for (int64_t r = 0; r < rows; ++r, out += output.epilogue.out_stride) {
    finish(acc + r * acc_stride, row + r, out);
  }
}

template <class Sums>
void finish_with(const __m512i* acc, int64_t acc_stride, int64_t row, int64_t rows, int64_t out,
                 const Output& output, Columns columns) {
  const auto finish = output.epilogue.out_u8 == nullptr ? finish_each<FloatRow<Sums>>
                      : output.clamp == Clamp::results  ? finish_each<CodeRow<Sums, Clamp::results>>
                                                        : finish_each<CodeRow<Sums, Clamp::codes>>;
  finish(acc, acc_stride, row, rows, out, output, columns);
}

// acc: kVectors, kApart apart, for each of the rows, which are acc_stride apart; the first begins
// at element `out` of the output, the others follow. Not inlined: it would make a tile's code long,
// and its registers few.
template <int kVectors, int kApart, bool kStart>
[[gnu::noinline]] void finish_rows(const __m512i* acc, int64_t acc_stride, int64_t row,
                                   int64_t rows, int64_t out, const Output& output,
                                   Columns columns) {
  const auto finish = output.epilogue.residual == nullptr
                          ? finish_with<Sums<kVectors, kApart, kStart, false>>
                          : finish_with<Sums<kVectors, kApart, kStart, true>>;
  finish(acc, acc_stride, row, rows, out, output, columns);
}

}  // namespace
}  // namespace qatx::kernels::avx512
