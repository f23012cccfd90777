#include "qatx/core/quant_spec.h"

#include <c10/util/Exception.h>
#include <fmt/format.h>

namespace qatx {

QuantSpec::QuantSpec(int64_t bits, bool with_sign, bool symmetric, std::optional<int64_t> axis,
                     bool narrow_range, std::optional<int64_t> group_size)
    : bits_(bits),
      signed_(with_sign),
      symmetric_(symmetric),
      axis_(axis),
      narrow_range_(narrow_range),
      group_size_(group_size) {
  TORCH_CHECK_VALUE(bits >= 2 && bits <= 8, "QuantSpec: bits must be from 2 to 8, got ", bits);
  TORCH_CHECK_VALUE(!group_size || *group_size >= 1,
                    "QuantSpec: group_size must be at least 1, got ", *group_size);
  TORCH_CHECK_VALUE(!group_size || axis, "QuantSpec: group_size needs an axis, got axis=None");
}

int64_t QuantSpec::quant_min() const {
  const int64_t lowest = signed_ ? -(int64_t{1} << (bits_ - 1)) : 0;
  return narrow_range_ ? lowest + 1 : lowest;
}

int64_t QuantSpec::quant_max() const {
  return signed_ ? (int64_t{1} << (bits_ - 1)) - 1 : (int64_t{1} << bits_) - 1;
}

std::vector<int64_t> QuantSpec::scale_shape(c10::IntArrayRef sizes) const {
  if (!axis_) return {};
  const auto dims = static_cast<int64_t>(sizes.size());
  TORCH_CHECK_VALUE(*axis_ >= -dims && *axis_ < dims, "QuantSpec: axis must be one of the ", dims,
                    " dimensions of the tensor, got ", *axis_);
  const auto axis = static_cast<size_t>(*axis_ < 0 ? *axis_ + dims : *axis_);
  if (!group_size_) return {sizes[axis]};
  std::vector<int64_t> shape = sizes.vec();
  shape[axis] = (shape[axis] + *group_size_ - 1) / *group_size_;
  return shape;
}

std::string QuantSpec::repr() const {
  const auto name = [](bool value) { return value ? "True" : "False"; };
  std::string text =
      fmt::format("QuantSpec(bits={}, signed={}, symmetric={}, axis={}", bits_, name(signed_),
                  name(symmetric_), axis_ ? std::to_string(*axis_) : "None");
  if (narrow_range_) text += ", narrow_range=True";
  if (group_size_) text += fmt::format(", group_size={}", *group_size_);
  return text + ")";
}

}  // namespace qatx
