#include "qatx/observers/rows.h"

#include <ATen/ops/movedim.h>

namespace qatx {
namespace {

// Whether what has one index along `axis` lies side by side already, in any order.
bool is_outermost(const at::Tensor& x, int64_t axis) {
  if (!x.is_non_overlapping_and_dense()) return false;
  for (int64_t d = 0; d < x.dim(); ++d) {
    if (d != axis && x.size(d) > 1 && x.stride(d) > x.stride(axis)) return false;
  }
  return true;
}

}  // namespace

Rows::Rows(const at::Tensor& x, const QuantSpec& spec) {
  if (!spec.axis()) {
    elements = x.is_non_overlapping_and_dense() ? x : x.contiguous();
    length = row_length = x.numel();
    return;
  }
  const int64_t axis = *spec.axis() < 0 ? *spec.axis() + x.dim() : *spec.axis();
  if (spec.group_size()) {
    elements = at::movedim(x, axis, -1).contiguous();
    length = x.size(axis);
    row_length = std::min(*spec.group_size(), std::max<int64_t>(length, 1));
    per_outer = (length + row_length - 1) / row_length;
    count = length == 0 ? 0 : x.numel() / length * per_outer;
    return;
  }
  elements = is_outermost(x, axis) ? x : at::movedim(x, axis, 0).contiguous();
  count = x.size(axis);
  length = row_length = count == 0 ? 0 : x.numel() / count;
}

at::Tensor in_shape_of_scales(const at::Tensor& rows, const QuantSpec& spec,
                              const std::vector<int64_t>& scale_shape) {
  if (!spec.group_size()) return rows.reshape(scale_shape);
  const auto dims = static_cast<int64_t>(scale_shape.size());
  const int64_t axis = *spec.axis() < 0 ? *spec.axis() + dims : *spec.axis();
  std::vector<int64_t> moved = scale_shape;
  moved.erase(moved.begin() + axis);
  moved.push_back(scale_shape[static_cast<size_t>(axis)]);
  return at::movedim(rows.reshape(moved), -1, axis).contiguous();
}

}  // namespace qatx
