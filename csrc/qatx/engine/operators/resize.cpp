#include "qatx/engine/operators/resize.h"

#include <c10/util/Exception.h>

#include <algorithm>

namespace qatx::engine {
namespace {

constexpr int64_t kMost = 1 << 20;  // elements along a dimension of the output

}  // namespace

Resize::Resize(const NodeReader& node) : name_(node.name()) {
  if (node.has_ints("size")) {
    sizes_ = node.int_list("size");
  } else {
    scales_ = node.float_list("scale");
  }
  const bool valid = std::all_of(sizes_.begin(), sizes_.end(),
                                 [](int64_t size) { return size > 0 && size <= kMost; }) &&
                     std::all_of(scales_.begin(), scales_.end(),
                                 [](double scale) { return scale > 0 && scale <= kMost; });
  TORCH_CHECK_VALUE(valid && sizes_.size() + scales_.size() > 0, "qatx program: '", name_,
                    "': each size or scale must be in 1..", kMost, " or (0, ", kMost, "]");
}

void Resize::check(const Shape& in) const {
  const size_t count = sizes_.size() + scales_.size();
  TORCH_CHECK_VALUE(in.size() == 2 + count && std::find(in.begin() + 2, in.end(), 0) == in.end(),
                    "qatx program: '", name_, "' takes inputs of ", 2 + count,
                    " dimensions, none of the last ", count, " of them 0, got ",
                    at::IntArrayRef(in));
}

Resize::Dimension Resize::dimension(const Shape& in, size_t d) const {
  check(in);
  if (!sizes_.empty()) {
    return {sizes_[d - 2], static_cast<float>(in[d]) / static_cast<float>(sizes_[d - 2])};
  }
  const double size = static_cast<double>(in[d]) * scales_[d - 2];
  TORCH_CHECK_VALUE(size >= 1 && size <= kMost, "qatx program: '", name_, "' cannot make ", size,
                    " elements of a dimension of an input of shape ", at::IntArrayRef(in));
  return {static_cast<int64_t>(size), static_cast<float>(1.0 / scales_[d - 2])};
}

float Resize::aligned_step(int64_t in, int64_t out) {
  return out > 1 ? static_cast<float>(in - 1) / static_cast<float>(out - 1) : 0.0f;
}

}  // namespace qatx::engine
