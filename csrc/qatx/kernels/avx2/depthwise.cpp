#include "qatx/kernels/depthwise.h"

#include "qatx/kernels/avx2/epilogue.h"
#include "qatx/kernels/ceil_div.h"
#include "qatx/kernels/implementations.h"
#include "qatx/kernels/packing.h"
#include "qatx/kernels/window_cursor.h"

namespace qatx::kernels {
namespace {

// Two taps are interleaved to [channel][tap], widened to 16 bits and added up with vpmaddwd.
// Weights are packed as 16-bit [block][pair of taps][channel][2 taps], filled up with zeros.
constexpr int64_t kBlock = 32;
constexpr int64_t kHalf = avx2::kColumns;
constexpr int64_t kPairWeights = kBlock * 2;

size_t packed_bytes(int64_t channels, int64_t taps) {
  return static_cast<size_t>(ceil_div(channels, kBlock) * ceil_div(taps, 2) * kPairWeights) *
         sizeof(int16_t);
}

struct Order {
  static constexpr int64_t kRun = 1;

  template <class Visit>
  static void visit(int64_t channels, int64_t taps, const Visit& visit) {
    for (int64_t block = 0; block < channels; block += kBlock) {
      for (int64_t pair = 0; pair < taps; pair += 2) {
        for (int64_t c = block; c < block + kBlock; ++c) {
          for (int64_t t = pair; t < pair + 2; ++t) {
            visit(c * taps + t, c < channels && t < taps ? 1 : 0);
          }
        }
      }
    }
  }
};
using Weights = DepthwisePacking<Order, int16_t>;

// Two taps of 16 channels into the accumulators.
inline __attribute__((always_inline)) void accumulate(__m256i (&acc)[2], const uint8_t* codes0,
                                                      const uint8_t* codes1,
                                                      const int16_t* weight) {
  const __m128i first = _mm_loadu_si128(reinterpret_cast<const __m128i*>(codes0));
  const __m128i second = _mm_loadu_si128(reinterpret_cast<const __m128i*>(codes1));
  const auto* w = reinterpret_cast<const __m256i*>(weight);
  const __m256i low = _mm256_cvtepu8_epi16(_mm_unpacklo_epi8(first, second));
  const __m256i high = _mm256_cvtepu8_epi16(_mm_unpackhi_epi8(first, second));
  acc[0] = _mm256_add_epi32(acc[0], _mm256_madd_epi16(low, _mm256_load_si256(w)));
  acc[1] = _mm256_add_epi32(acc[1], _mm256_madd_epi16(high, _mm256_load_si256(w + 1)));
}

// One block of channels, of which the first kHalves halves are there.
template <int kHalves>
void run_block(const DepthwiseArgs& args, const int16_t* block_weight, int64_t channel,
               int64_t row_begin, int64_t row_end) {
  const avx2::Finish finish(args.epilogue);
  const auto* start = reinterpret_cast<const __m256i*>(args.start + channel);
  const int64_t taps = args.window.taps;
  WindowCursor cursor(args.window, row_begin);
  for (int64_t r = row_begin; r < row_end; ++r, cursor.advance()) {
    const WindowRow row = cursor.row();
    __m256i acc[kHalves][2];
#pragma GCC unroll 2
    for (int h = 0; h < kHalves; ++h) {
      acc[h][0] = _mm256_loadu_si256(start + 2 * h);
      acc[h][1] = _mm256_loadu_si256(start + 2 * h + 1);
    }
    const int16_t* weight = block_weight;
    for (int64_t t = 0; t < taps; t += 2, weight += kPairWeights) {
      const uint8_t* codes0 = row.tap(t) + channel;
      // The tap that fills up the last pair has zero weights: any input will do.
      const uint8_t* codes1 = row.tap(t + 1 < taps ? t + 1 : t) + channel;
#pragma GCC unroll 2
      for (int h = 0; h < kHalves; ++h) {
        accumulate(acc[h], codes0 + h * kHalf, codes1 + h * kHalf, weight + h * kHalf * 2);
      }
    }
#pragma GCC unroll 2
    for (int h = 0; h < kHalves; ++h) {
      // A copy: variables whose address is passed on are never registers.
      const __m256i result[2] = {acc[h][0], acc[h][1]};
      const int64_t c = channel + h * kHalf;
      finish(result, r, r * args.epilogue.out_stride, c, args.channels - c);
    }
  }
}

void run(const DepthwiseArgs& args, int64_t row_begin, int64_t row_end) {
  const auto* weight = static_cast<const int16_t*>(args.weight);
  const int64_t block_weights = ceil_div(args.window.taps, 2) * kPairWeights;
  for (int64_t c = 0; c < args.channels; c += kBlock, weight += block_weights) {
    const auto run_channels = args.channels - c <= kHalf ? run_block<1> : run_block<2>;
    run_channels(args, weight, c, row_begin, row_end);
  }
}

}  // namespace

const DepthwiseKernel avx2::depthwise = {kBlock, packed_bytes, Weights::pack, Weights::unpack, run};

}  // namespace qatx::kernels
