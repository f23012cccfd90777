#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "qatx/engine/node_reader.h"
#include "qatx/engine/operator.h"
#include "qatx/kernels/window.h"

namespace qatx::engine {

// The geometry of a convolution or pooling of images or, in three dimensions, of volumes: one
// number for each spatial dimension, the slowest (height, or depth) first.
struct Spatial {
  std::vector<int64_t> kernel;
  std::vector<int64_t> stride;
  std::vector<int64_t> dilation;
  std::vector<int64_t> padding;  // all that lies before the input, then all behind it

  size_t dimensions() const { return kernel.size(); }
  int64_t taps() const;
  // Of inputs of spatial sizes `size`. Throws c10::Error where the kernel does not fit the padded
  // input.
  std::vector<int64_t> output_size(std::span<const int64_t> size, bool ceil_mode = false) const;
};

// Reads stride, dilation and padding; kernel sizes come from the weight or from attribute "kernel".
Spatial read_spatial(const NodeReader& node, std::vector<int64_t> kernel);

// N, C, then `dimensions` spatial sizes. Throws c10::Error for another number of dimensions, or
// images whose bytes an int32 cannot count.
void check_image_shape(const std::string& name, const Shape& shape, size_t dimensions);

// The spatial sizes of an image, and how many elements they make.
std::span<const int64_t> spatial_sizes(const Shape& image);
int64_t pixel_count(const Shape& image);

// Window::offsets for images with channels last of these spatial sizes; -1 in the padding.
std::vector<int32_t> window_offsets(const Spatial& spatial, std::span<const int64_t> size,
                                    int64_t channels, std::span<const int64_t> output_size);

}  // namespace qatx::engine
