#include "qatx/ops/scales.h"

#include <ATen/TensorOperators.h>
#include <torch/library.h>

#include "qatx/core/checks.h"
#include "qatx/ops/operator.h"

namespace qatx {
namespace {

// The mantissa of the square root of 2 in a format is the last that is rounded down (up in
// float64), so adding what lies between it and the next power of two carries into the exponent just
// where it must.
at::Tensor power_of_two_forward(const at::Tensor& scale) {
  check_scale_parameter(scale, "scale");
  if (scale.scalar_type() == at::kFloat) {
    const at::Tensor bits = scale.view(at::kInt) + (0x800000 - 0x3504F4);
    return bits.bitwise_and(0x7F800000).view(at::kFloat);
  }
  const at::Tensor bits = scale.view(at::kLong) + (0x10000000000000 - 0x6A09E667F3BCD);
  return bits.bitwise_and(0x7FF0000000000000).view(at::kDouble);
}

}  // namespace

at::Tensor learned_scale(const at::Tensor& raw) {
  static const auto op = find_operator<decltype(learned_scale)>("qatx::learned_scale");
  return op.call(raw);
}

at::Tensor learned_scale_backward(const at::Tensor& grad, const at::Tensor& raw) {
  static const auto op =
      find_operator<decltype(learned_scale_backward)>("qatx::learned_scale_backward");
  return op.call(grad, raw);
}

at::Tensor power_of_two_scale(const at::Tensor& scale) {
  static const auto op = find_operator<decltype(power_of_two_scale)>("qatx::power_of_two_scale");
  return op.call(scale);
}

TORCH_LIBRARY_FRAGMENT(qatx, m) {
  m.def("learned_scale(Tensor raw) -> Tensor");
  m.def("learned_scale_backward(Tensor grad, Tensor raw) -> Tensor");
  m.def("power_of_two_scale(Tensor scale) -> Tensor");
}
// Composed of ATen operators, so one implementation serves every device and fake tensors.
TORCH_LIBRARY_IMPL(qatx, CompositeExplicitAutograd, m) {
  m.impl("power_of_two_scale", power_of_two_forward);
}

}  // namespace qatx
