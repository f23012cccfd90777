#pragma once

#include <cstdint>

namespace qatx::kernels {

// Where the inputs of a depthwise convolution or a pooling lie: every output row (a pixel of an
// image) sees `taps` input pixels. Row r belongs to image r / pixels and to pixel p = r % pixels
// there; its tap t starts at
//   input + image * image_stride + offsets[p * taps + t]
// or, where that offset is negative (padding), at `pad`.
// Kernels may read up to kOverRead bytes behind the end of a pixel's channels: buffers are that
// much longer, and what is read there is multiplied by zero or dropped.
inline constexpr int64_t kOverRead = 64;

struct Window {
  const uint8_t* input;
  int64_t image_stride;  // bytes
  int64_t pixels;        // output pixels per image
  int64_t taps;
  const int32_t* offsets;  // [pixels][taps]
  const uint8_t* pad;      // one pixel of zero points
};

}  // namespace qatx::kernels
