#include "qatx/ops/learned_scale.h"

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/abs.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/lt.h>
#include <ATen/ops/nan_to_num.h>
#include <ATen/ops/where.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

namespace qatx {
namespace {

constexpr double kFloor = 0x1p-64;
constexpr double kCeiling = 0x1p64;

at::Tensor forward(const at::Tensor& raw) {
  TORCH_CHECK_TYPE(raw.scalar_type() == at::kFloat, "raw must be float32, got ",
                   c10::toString(raw.scalar_type()));
  return at::nan_to_num(at::abs(raw), kFloor).clamp_(kFloor, kCeiling);
}

class LearnedScale : public torch::autograd::Function<LearnedScale> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext* ctx, const at::Tensor& raw) {
    at::AutoDispatchBelowADInplaceOrView guard;
    ctx->save_for_backward({raw});
    return learned_scale(raw);
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 const torch::autograd::variable_list& grads) {
    const at::Tensor raw = ctx->get_saved_variables()[0];
    const at::Tensor& grad = grads[0];
    return {at::where(at::isfinite(grad), at::where(at::lt(raw, 0), -grad, grad), 0.0)};
  }
};

at::Tensor forward_autograd(const at::Tensor& raw) { return LearnedScale::apply(raw); }

}  // namespace

at::Tensor learned_scale(const at::Tensor& raw) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("qatx::learned_scale", "")
                             .typed<decltype(learned_scale)>();
  return op.call(raw);
}

TORCH_LIBRARY_FRAGMENT(qatx, m) { m.def("learned_scale(Tensor raw) -> Tensor"); }
// Composed of ATen operators, so one implementation serves every device and fake tensors.
TORCH_LIBRARY_IMPL(qatx, CompositeExplicitAutograd, m) { m.impl("learned_scale", forward); }
TORCH_LIBRARY_IMPL(qatx, Autograd, m) { m.impl("learned_scale", forward_autograd); }

}  // namespace qatx
