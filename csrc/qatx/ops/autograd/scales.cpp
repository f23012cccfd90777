#include "qatx/ops/scales.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>
#include <torch/library.h>

#include "qatx/ops/autograd/node.h"

namespace qatx {
namespace {

at::Tensor learned_scale_autograd(const at::Tensor& raw) {
  const at::Tensor scale = [&] {
    const at::AutoDispatchBelowADInplaceOrView guard;
    return learned_scale(raw);
  }();
  if (requires_gradient("learned_scale", raw)) {
    record_backward("qatx::LearnedScaleBackward", scale, {raw}, {raw},
                    [](const variable_list& saved, const at::Tensor& grad) -> variable_list {
                      return {learned_scale_backward(grad, saved[0])};
                    });
  }
  return scale;
}

at::Tensor power_of_two_autograd(const at::Tensor& scale) {
  const at::Tensor result = [&] {
    const at::AutoDispatchBelowADInplaceOrView guard;
    return power_of_two_scale(scale);
  }();
  if (requires_gradient("power_of_two_scale", scale)) {
    record_backward("qatx::PowerOfTwoScaleBackward", result, {scale}, {scale},
                    [](const variable_list& saved, const at::Tensor& grad) -> variable_list {
                      // The result is a constant times the scale, as far as gradients go.
                      const at::Tensor constant = saved[0].detach();
                      return {grad * (power_of_two_scale(constant) / constant)};
                    });
  }
  return result;
}

}  // namespace

TORCH_LIBRARY_IMPL(qatx, Autograd, m) {
  m.impl("learned_scale", learned_scale_autograd);
  m.impl("power_of_two_scale", power_of_two_autograd);
  // A second derivative is an error, not a silent zero.
  m.impl("learned_scale_backward", torch::autograd::autogradNotImplementedFallback());
}

}  // namespace qatx
