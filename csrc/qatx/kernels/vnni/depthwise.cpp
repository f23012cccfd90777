#include "qatx/kernels/depthwise.h"

#include "qatx/kernels/avx512/epilogue.h"
#include "qatx/kernels/ceil_div.h"
#include "qatx/kernels/implementations.h"
#include "qatx/kernels/packing.h"
#include "qatx/kernels/vnni/dot.h"
#include "qatx/kernels/window_cursor.h"

namespace qatx::kernels {
namespace {

// A register holds the codes of 64 channels of one pixel, or of 32 channels of 2 pixels, or of 16
// channels of 4 pixels: 128-bit lanes are independent throughout. Four taps are interleaved to
// [channel][tap] with unpack instructions, which leaves the channels 4 j .. 4 j + 3 of each lane in
// register j of four. Weights are packed to match:
//   [block][group of 4 taps][register][lane][4 channels][4 taps]
// filled up with zeros; the last block repeats its channels where a pixel takes 1 or 2 lanes only.
constexpr int64_t kBlock = 64;
constexpr int64_t kGroup = 4;
constexpr int64_t kLaneChannels = 16;
constexpr int64_t kVectorBytes = 64;
constexpr int64_t kGroupBytes = kBlock * kGroup;

// Lanes that a pixel of a block with this many channels takes: 1, 2 or 4.
int64_t lanes_per_pixel(int64_t channels) {
  return channels <= kLaneChannels ? 1 : channels <= 2 * kLaneChannels ? 2 : 4;
}

size_t packed_bytes(int64_t channels, int64_t taps) {
  return static_cast<size_t>(ceil_div(channels, kBlock) * ceil_div(taps, kGroup) * kGroupBytes);
}

struct Order {
  static constexpr int64_t kRun = 1;

  template <class Visit>
  static void visit(int64_t channels, int64_t taps, const Visit& visit) {
    for (int64_t block = 0; block < channels; block += kBlock) {
      const int64_t lanes = lanes_per_pixel(channels - block);
      for (int64_t group = 0; group < taps; group += kGroup) {
        for (int64_t i = 0; i < kBlock; ++i) {
          const int64_t vector = i / kLaneChannels;
          const int64_t lane = i % kLaneChannels / 4;
          const int64_t c = block + lane % lanes * kLaneChannels + 4 * vector + i % 4;
          for (int64_t t = group; t < group + kGroup; ++t) {
            visit(c * taps + t, c < channels && t < taps ? 1 : 0);
          }
        }
      }
    }
  }
};
using Weights = DepthwisePacking<Order, int8_t>;

// 64 floats or int32 in the order of the accumulators.
struct Vectors {
  __m512 v[4];
};

// Transposes a 4 x 4 matrix of 128-bit lanes, which turns four vectors of 16 consecutive channels
// each into the order of the accumulators, and back.
Vectors transpose_lanes(const Vectors& in) {
  const __m512 low01 = _mm512_shuffle_f32x4(in.v[0], in.v[1], 0x44);
  const __m512 low23 = _mm512_shuffle_f32x4(in.v[2], in.v[3], 0x44);
  const __m512 high01 = _mm512_shuffle_f32x4(in.v[0], in.v[1], 0xee);
  const __m512 high23 = _mm512_shuffle_f32x4(in.v[2], in.v[3], 0xee);
  return {{_mm512_shuffle_f32x4(low01, low23, 0x88), _mm512_shuffle_f32x4(low01, low23, 0xdd),
           _mm512_shuffle_f32x4(high01, high23, 0x88), _mm512_shuffle_f32x4(high01, high23, 0xdd)}};
}

// One value for each channel of a block; the first channels again for each pixel.
template <int kPixels>
Vectors load_parameters(const void* values) {
  constexpr int kLanes = 4 / kPixels;
  const auto* from = static_cast<const float*>(values);
  return transpose_lanes(
      {{_mm512_loadu_ps(from), _mm512_loadu_ps(from + 1 % kLanes * kLaneChannels),
        _mm512_loadu_ps(from + 2 % kLanes * kLaneChannels),
        _mm512_loadu_ps(from + 3 % kLanes * kLaneChannels)}});
}

// The codes of a block's channels. Those behind the last one are multiplied by zero.
template <int kPixels>
__m512i load_codes(const uint8_t* const (&pixels)[kPixels]) {
  if constexpr (kPixels == 1) {
    return _mm512_loadu_si512(pixels[0]);
  } else if constexpr (kPixels == 2) {
    const auto half = [&](int p) {
      return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(pixels[p]));
    };
    return _mm512_inserti64x4(_mm512_castsi256_si512(half(0)), half(1), 1);
  } else {
    const auto lane = [&](int p) {
      return _mm_loadu_si128(reinterpret_cast<const __m128i*>(pixels[p]));
    };
    const __m256i low = _mm256_inserti32x4(_mm256_castsi128_si256(lane(0)), lane(1), 1);
    const __m256i high = _mm256_inserti32x4(_mm256_castsi128_si256(lane(2)), lane(3), 1);
    return _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
  }
}

// One block of channels, for kPixels rows at a time.
template <int kPixels>
class Block {
 public:
  Block(const DepthwiseArgs& args, const int8_t* weight, int64_t channel, bool small)
      : args_(args),
        epilogue_(args.epilogue),
        requantize_(args.epilogue),
        small_(small),
        weight_(weight),
        channel_(channel),
        channels_(args.channels - channel),
        start_(load_parameters<kPixels>(args.start + channel)),
        scale_(load_parameters<kPixels>(args.epilogue.scale + channel)),
        bias_(load_parameters<kPixels>(args.epilogue.bias + channel)) {}

  void run(int64_t row_begin, int64_t row_end) const {
    WindowCursor cursor(args_.window, row_begin);
    for (int64_t row = row_begin; row < row_end; row += kPixels) {
      const int pixels = row_end - row < kPixels ? static_cast<int>(row_end - row) : kPixels;
      WindowRow rows[kPixels];
      for (int p = 0; p < kPixels; ++p) {
        rows[p] = cursor.row();
        if (p + 1 < pixels) cursor.advance();  // the last one again where there are fewer
      }
      cursor.advance();
      store(sum(rows), row, pixels);
    }
  }

 private:
  // y before the residual
  Vectors sum(const WindowRow (&rows)[kPixels]) const {
    __m512i acc0 = _mm512_castps_si512(start_.v[0]);
    __m512i acc1 = _mm512_castps_si512(start_.v[1]);
    __m512i acc2 = _mm512_castps_si512(start_.v[2]);
    __m512i acc3 = _mm512_castps_si512(start_.v[3]);
    const int8_t* weight = weight_;
    for (int64_t t = 0; t < args_.window.taps; t += kGroup, weight += kGroupBytes) {
      const __m512i codes0 = load_tap(rows, t);
      const __m512i codes1 = load_tap(rows, t + 1);
      const __m512i codes2 = load_tap(rows, t + 2);
      const __m512i codes3 = load_tap(rows, t + 3);
      const __m512i low01 = _mm512_unpacklo_epi8(codes0, codes1);
      const __m512i low23 = _mm512_unpacklo_epi8(codes2, codes3);
      const __m512i high01 = _mm512_unpackhi_epi8(codes0, codes1);
      const __m512i high23 = _mm512_unpackhi_epi8(codes2, codes3);
      const auto w = [&](int v) { return _mm512_load_si512(weight + v * kVectorBytes); };
      vnni::dot(acc0, _mm512_unpacklo_epi16(low01, low23), w(0));
      vnni::dot(acc1, _mm512_unpackhi_epi16(low01, low23), w(1));
      vnni::dot(acc2, _mm512_unpacklo_epi16(high01, high23), w(2));
      vnni::dot(acc3, _mm512_unpackhi_epi16(high01, high23), w(3));
    }
    return {{avx512::scale_and_bias(acc0, scale_.v[0], bias_.v[0]),
             avx512::scale_and_bias(acc1, scale_.v[1], bias_.v[1]),
             avx512::scale_and_bias(acc2, scale_.v[2], bias_.v[2]),
             avx512::scale_and_bias(acc3, scale_.v[3], bias_.v[3])}};
  }

  // Taps that fill up the last group have zero weights: any input will do.
  __m512i load_tap(const WindowRow (&rows)[kPixels], int64_t t) const {
    const int64_t tap = t < args_.window.taps ? t : args_.window.taps - 1;
    const uint8_t* pixels[kPixels];
    for (int p = 0; p < kPixels; ++p) pixels[p] = rows[p].tap(tap) + channel_;
    return load_codes(pixels);
  }

  void store(Vectors y, int64_t row, int pixels) const {
    if (epilogue_.residual != nullptr) add_residual(y, row, pixels);
    if (epilogue_.out_u8 != nullptr) {
      store_codes(y, row, pixels);
    } else {
      store_floats(y, row, pixels);
    }
  }

  void add_residual(Vectors& y, int64_t row, int pixels) const {
    alignas(64) uint8_t codes[kBlock] = {};
    for (int p = 0; p < pixels; ++p) {
      const uint8_t* from = epilogue_.residual + (row + p) * epilogue_.residual_stride + channel_;
      const __mmask64 mask = avx512::first_64(channels_);
      _mm512_mask_storeu_epi8(codes + p * kPixelChannels, mask,
                              _mm512_maskz_loadu_epi8(mask, from));
    }
    const __m512i bytes = _mm512_load_si512(codes);
    const __m512i zero = _mm512_setzero_si512();
    const __m512i low = _mm512_unpacklo_epi8(bytes, zero);
    const __m512i high = _mm512_unpackhi_epi8(bytes, zero);
    y.v[0] = avx512::add_residual(y.v[0], _mm512_unpacklo_epi16(low, zero), epilogue_);
    y.v[1] = avx512::add_residual(y.v[1], _mm512_unpackhi_epi16(low, zero), epilogue_);
    y.v[2] = avx512::add_residual(y.v[2], _mm512_unpacklo_epi16(high, zero), epilogue_);
    y.v[3] = avx512::add_residual(y.v[3], _mm512_unpackhi_epi16(high, zero), epilogue_);
  }

  void store_codes(const Vectors& y, int64_t row, int pixels) const {
    const __m512i bytes = small_ ? small_codes(y) : any_codes(y);
    uint8_t* out = epilogue_.out_u8 + row * epilogue_.out_stride + channel_;
    if (kPixels == 1 && channels_ >= kBlock) {
      _mm512_storeu_si512(out, bytes);
      return;
    }
    const __mmask64 mask = avx512::first_64(channels_);
    for (int p = 0; p < pixels; ++p, out += epilogue_.out_stride) {
      // Pixel p's lanes to the front.
      const __m512i order =
          _mm512_add_epi64(_mm512_setr_epi64(0, 1, 2, 3, 4, 5, 6, 7),
                           _mm512_set1_epi64(p * kPixelChannels / int64_t{sizeof(int64_t)}));
      _mm512_mask_storeu_epi8(out, mask, _mm512_permutexvar_epi64(order, bytes));
    }
  }

  __m512i small_codes(const Vectors& y) const {
    const avx512::Requantize& r = requantize_;
    return r.clamp_codes(r.pack_lanes(r.without_clamp(y.v[0]), r.without_clamp(y.v[1]),
                                      r.without_clamp(y.v[2]), r.without_clamp(y.v[3])));
  }

  __m512i any_codes(const Vectors& y) const {
    const avx512::Requantize& r = requantize_;
    return r.pack_lanes(r(y.v[0]), r(y.v[1]), r(y.v[2]), r(y.v[3]));
  }

  void store_floats(const Vectors& y, int64_t row, int pixels) const {
    const Vectors in_order = transpose_lanes(y);
    for (int v = 0; v < pixels * kLanesPerPixel; ++v) {
      const int64_t c = v % kLanesPerPixel * kLaneChannels;
      _mm512_mask_storeu_ps(
          epilogue_.out_f32 + (row + v / kLanesPerPixel) * epilogue_.out_stride + channel_ + c,
          avx512::first_16(channels_ - c), avx512::clamp(in_order.v[v], epilogue_));
    }
  }

  static constexpr int kLanesPerPixel = 4 / kPixels;
  static constexpr int kPixelChannels = kLanesPerPixel * kLaneChannels;

  const DepthwiseArgs& args_;
  const Epilogue& epilogue_;
  avx512::Requantize requantize_;
  bool small_;  // all results are small
  const int8_t* weight_;
  int64_t channel_;   // the first one
  int64_t channels_;  // how many are left
  Vectors start_;     // int32
  Vectors scale_;
  Vectors bias_;
};

void run(const DepthwiseArgs& args, int64_t row_begin, int64_t row_end) {
  const auto* weight = static_cast<const int8_t*>(args.weight);
  const int64_t block_bytes = ceil_div(args.window.taps, kGroup) * kGroupBytes;
  const bool small = avx512::are_small(args.epilogue, args.start, args.channels, args.window.taps);
  for (int64_t c = 0; c < args.channels; c += kBlock, weight += block_bytes) {
    switch (lanes_per_pixel(args.channels - c)) {
      case 1:
        Block<4>(args, weight, c, small).run(row_begin, row_end);
        break;
      case 2:
        Block<2>(args, weight, c, small).run(row_begin, row_end);
        break;
      default:
        Block<1>(args, weight, c, small).run(row_begin, row_end);
    }
  }
}

}  // namespace

const DepthwiseKernel vnni::depthwise = {kBlock, packed_bytes, Weights::pack, Weights::unpack, run};

}  // namespace qatx::kernels
