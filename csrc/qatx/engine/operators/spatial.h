#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "qatx/engine/node_reader.h"
#include "qatx/engine/operator.h"
#include "qatx/kernels/window.h"

namespace qatx::engine {

// The geometry of a two-dimensional convolution or pooling.
struct Spatial {
  std::array<int64_t, 2> kernel;
  std::array<int64_t, 2> stride;
  std::array<int64_t, 2> dilation;
  std::array<int64_t, 4> padding;  // top, left, bottom, right

  int64_t taps() const { return kernel[0] * kernel[1]; }
  // Height and width of the output. Throws c10::Error where the kernel does not fit the padded
  // input.
  std::array<int64_t, 2> output_size(int64_t height, int64_t width, bool ceil_mode = false) const;
};

// Reads stride, dilation and padding; kernel sizes come from the weight or from attribute "kernel".
Spatial read_spatial(const NodeReader& node, std::array<int64_t, 2> kernel);

// N, C, H, W. Throws c10::Error for another number of dimensions, or images whose bytes an int32
// cannot count.
void check_image_shape(const std::string& name, const Shape& shape);

// Window::offsets for NHWC images of this height, width and number of channels; -1 in the padding.
std::vector<int32_t> window_offsets(const Spatial& spatial, int64_t height, int64_t width,
                                    int64_t channels, std::array<int64_t, 2> output_size);

}  // namespace qatx::engine
