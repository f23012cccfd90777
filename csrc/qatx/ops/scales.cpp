#include "qatx/ops/scales.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/abs.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/lt.h>
#include <ATen/ops/nan_to_num.h>
#include <ATen/ops/where.h>
#include <torch/library.h>

#include "qatx/ops/autograd/node.h"
#include "qatx/ops/operator.h"

namespace qatx {
namespace {

constexpr double kFloor = 0x1p-64;
constexpr double kCeiling = 0x1p64;

void check_parameter(const at::Tensor& t, const char* name) {
  TORCH_CHECK_TYPE(t.scalar_type() == at::kFloat || t.scalar_type() == at::kDouble, name,
                   " must be float32 or float64, got ", c10::toString(t.scalar_type()));
}

at::Tensor learned_scale_forward(const at::Tensor& raw) {
  check_parameter(raw, "raw");
  return at::nan_to_num(at::abs(raw), kFloor).clamp_(kFloor, kCeiling);
}

at::Tensor learned_scale_autograd(const at::Tensor& raw) {
  const at::Tensor scale = [&] {
    const at::AutoDispatchBelowADInplaceOrView guard;
    return learned_scale(raw);
  }();
  if (torch::autograd::compute_requires_grad(raw)) {
    record_backward("qatx::LearnedScaleBackward", scale, {raw}, {raw},
                    [](const variable_list& saved, const at::Tensor& grad) -> variable_list {
                      const at::Tensor reflected = at::where(at::lt(saved[0], 0), -grad, grad);
                      return {at::where(at::isfinite(grad), reflected, 0.0)};
                    });
  }
  return scale;
}

// The mantissa of the square root of 2 in a format is the last that is rounded down (up in
// float64), so adding what lies between it and the next power of two carries into the exponent just
// where it must.
at::Tensor power_of_two_forward(const at::Tensor& scale) {
  check_parameter(scale, "scale");
  if (scale.scalar_type() == at::kFloat) {
    const at::Tensor bits = scale.view(at::kInt) + (0x800000 - 0x3504F4);
    return bits.bitwise_and(0x7F800000).view(at::kFloat);
  }
  const at::Tensor bits = scale.view(at::kLong) + (0x10000000000000 - 0x6A09E667F3BCD);
  return bits.bitwise_and(0x7FF0000000000000).view(at::kDouble);
}

at::Tensor power_of_two_autograd(const at::Tensor& scale) {
  const at::Tensor result = [&] {
    const at::AutoDispatchBelowADInplaceOrView guard;
    return power_of_two_scale(scale);
  }();
  if (torch::autograd::compute_requires_grad(scale)) {
    record_backward("qatx::PowerOfTwoScaleBackward", result, {scale}, {scale},
                    [](const variable_list& saved, const at::Tensor& grad) -> variable_list {
                      return {grad * (power_of_two_scale(saved[0].detach()) / saved[0])};
                    });
  }
  return result;
}

}  // namespace

at::Tensor learned_scale(const at::Tensor& raw) {
  static const auto op = find_operator<decltype(learned_scale)>("qatx::learned_scale");
  return op.call(raw);
}

at::Tensor power_of_two_scale(const at::Tensor& scale) {
  static const auto op = find_operator<decltype(power_of_two_scale)>("qatx::power_of_two_scale");
  return op.call(scale);
}

TORCH_LIBRARY_FRAGMENT(qatx, m) {
  m.def("learned_scale(Tensor raw) -> Tensor");
  m.def("power_of_two_scale(Tensor scale) -> Tensor");
}
// Composed of ATen operators, so one implementation serves every device and fake tensors.
TORCH_LIBRARY_IMPL(qatx, CompositeExplicitAutograd, m) {
  m.impl("learned_scale", learned_scale_forward);
  m.impl("power_of_two_scale", power_of_two_forward);
}
TORCH_LIBRARY_IMPL(qatx, Autograd, m) {
  m.impl("learned_scale", learned_scale_autograd);
  m.impl("power_of_two_scale", power_of_two_autograd);
}

}  // namespace qatx
