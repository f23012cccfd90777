#include "qatx/engine/operators/spatial.h"

#include <c10/util/Exception.h>
#include <c10/util/accumulate.h>

#include <limits>

namespace qatx::engine {
namespace {

// Far above any network's, and small enough that products of two do not overflow.
constexpr int64_t kMost = 1 << 20;

// Calls body() for every index below `sizes`, the last number the fastest.
template <class Body>
void for_each_index(std::span<const int64_t> sizes, std::vector<int64_t>& index, const Body& body) {
  index.assign(sizes.size(), 0);
  for (int64_t left = c10::multiply_integers(sizes.begin(), sizes.end()); left > 0; --left) {
    body();
    for (size_t d = sizes.size(); d-- > 0;) {
      if (++index[d] < sizes[d]) break;
      index[d] = 0;
    }
  }
}

}  // namespace

int64_t Spatial::taps() const { return c10::multiply_integers(kernel); }

std::vector<int64_t> Spatial::output_size(std::span<const int64_t> size, bool ceil_mode) const {
  std::vector<int64_t> output(dimensions());
  for (size_t d = 0; d < dimensions(); ++d) {
    const int64_t span = dilation[d] * (kernel[d] - 1) + 1;
    const int64_t room = size[d] + padding[d] + padding[d + dimensions()] - span;
    TORCH_CHECK_VALUE(room + (ceil_mode ? stride[d] - 1 : 0) >= 0, "qatx program: a window of ",
                      span, " does not fit a padded input of ", room + span);
    output[d] = (room + (ceil_mode ? stride[d] - 1 : 0)) / stride[d] + 1;
    // As in PyTorch, the last window starts inside the input or its left padding.
    if (ceil_mode && (output[d] - 1) * stride[d] >= size[d] + padding[d]) --output[d];
  }
  return output;
}

Spatial read_spatial(const NodeReader& node, std::vector<int64_t> kernel) {
  const size_t n = kernel.size();
  return {std::move(kernel), node.ints("stride", n, 1, kMost), node.ints("dilation", n, 1, kMost),
          node.ints("padding", 2 * n, 0, kMost)};
}

void check_image_shape(const std::string& name, const Shape& shape, size_t dimensions) {
  double image = 1;
  bool empty = false;
  for (size_t d = 1; d < shape.size(); ++d) {
    image *= static_cast<double>(shape[d]);
    empty |= shape[d] <= 0;
  }
  TORCH_CHECK_VALUE(shape.size() == dimensions + 2 && !empty, "qatx program: '", name,
                    "' takes inputs of ", dimensions + 2, " dimensions (N, C, ",
                    dimensions == 3 ? "D, H, W" : "H, W", "), only N of them 0, got ",
                    at::IntArrayRef(shape));
  TORCH_CHECK_VALUE(image < std::numeric_limits<int32_t>::max(), "qatx program: '", name,
                    "' takes images of less than 2^31 elements, got ", at::IntArrayRef(shape));
}

std::span<const int64_t> spatial_sizes(const Shape& image) {
  return std::span<const int64_t>(image).subspan(2);
}

int64_t pixel_count(const Shape& image) {
  return c10::multiply_integers(image.begin() + 2, image.end());
}

std::vector<int32_t> window_offsets(const Spatial& s, std::span<const int64_t> size,
                                    int64_t channels, std::span<const int64_t> output_size) {
  std::vector<int32_t> offsets;
  offsets.reserve(static_cast<size_t>(
      c10::multiply_integers(output_size.begin(), output_size.end()) * s.taps()));
  std::vector<int64_t> pixel;
  std::vector<int64_t> tap;
  for_each_index(output_size, pixel, [&] {
    for_each_index(s.kernel, tap, [&] {
      int64_t offset = 0;
      bool inside = true;
      for (size_t d = 0; d < size.size(); ++d) {
        const int64_t at = pixel[d] * s.stride[d] - s.padding[d] + tap[d] * s.dilation[d];
        inside &= at >= 0 && at < size[d];
        offset = offset * size[d] + at;
      }
      offsets.push_back(inside ? static_cast<int32_t>(offset * channels) : -1);
    });
  });
  return offsets;
}

}  // namespace qatx::engine
