#include "qatx/engine/operators/spatial.h"

#include <c10/util/Exception.h>

#include <limits>

namespace qatx::engine {
namespace {

// Far above any network's, and small enough that products of two do not overflow.
constexpr int64_t kMost = 1 << 20;

}  // namespace

std::array<int64_t, 2> Spatial::output_size(int64_t height, int64_t width, bool ceil_mode) const {
  const std::array<int64_t, 2> input{height, width};
  std::array<int64_t, 2> output{};
  for (size_t d = 0; d < 2; ++d) {
    const int64_t span = dilation[d] * (kernel[d] - 1) + 1;
    const int64_t room = input[d] + padding[d] + padding[d + 2] - span;
    TORCH_CHECK_VALUE(room + (ceil_mode ? stride[d] - 1 : 0) >= 0, "qatx program: a window of ",
                      span, " does not fit a padded input of ", room + span);
    output[d] = (room + (ceil_mode ? stride[d] - 1 : 0)) / stride[d] + 1;
    // As in PyTorch, the last window starts inside the input or its left padding.
    if (ceil_mode && (output[d] - 1) * stride[d] >= input[d] + padding[d]) --output[d];
  }
  return output;
}

Spatial read_spatial(const NodeReader& node, std::array<int64_t, 2> kernel) {
  const auto stride = node.ints("stride", 2, 1, kMost);
  const auto dilation = node.ints("dilation", 2, 1, kMost);
  const auto padding = node.ints("padding", 4, 0, kMost);
  return {kernel,
          {stride[0], stride[1]},
          {dilation[0], dilation[1]},
          {padding[0], padding[1], padding[2], padding[3]}};
}

void check_image_shape(const std::string& name, const Shape& shape) {
  TORCH_CHECK_VALUE(shape.size() == 4 && shape[1] > 0 && shape[2] > 0 && shape[3] > 0,
                    "qatx program: '", name,
                    "' takes inputs of 4 dimensions (N, C, H, W), only N of them 0, got ",
                    at::IntArrayRef(shape));
  const double image =
      static_cast<double>(shape[1]) * static_cast<double>(shape[2]) * static_cast<double>(shape[3]);
  TORCH_CHECK_VALUE(image < std::numeric_limits<int32_t>::max(), "qatx program: '", name,
                    "' takes images of less than 2^31 elements, got ", at::IntArrayRef(shape));
}

std::vector<int32_t> window_offsets(const Spatial& s, int64_t height, int64_t width,
                                    int64_t channels, std::array<int64_t, 2> output_size) {
  std::vector<int32_t> offsets;
  offsets.reserve(static_cast<size_t>(output_size[0] * output_size[1] * s.taps()));
  for (int64_t oh = 0; oh < output_size[0]; ++oh) {
    for (int64_t ow = 0; ow < output_size[1]; ++ow) {
      for (int64_t kh = 0; kh < s.kernel[0]; ++kh) {
        for (int64_t kw = 0; kw < s.kernel[1]; ++kw) {
          const int64_t h = oh * s.stride[0] - s.padding[0] + kh * s.dilation[0];
          const int64_t w = ow * s.stride[1] - s.padding[1] + kw * s.dilation[1];
          const bool inside = h >= 0 && h < height && w >= 0 && w < width;
          offsets.push_back(inside ? static_cast<int32_t>((h * width + w) * channels) : -1);
        }
      }
    }
  }
  return offsets;
}

}  // namespace qatx::engine
