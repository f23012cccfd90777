#include "qatx/ops/learned_zero_point.h"

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/nan_to_num.h>
#include <torch/library.h>

#include "qatx/ops/autograd/node.h"

namespace qatx {
namespace {

at::Tensor forward_autograd(const at::Tensor& raw) {
  const at::Tensor zero_point = [&] {
    const at::AutoDispatchBelowADInplaceOrView guard;
    return learned_zero_point(raw);
  }();
  if (requires_gradient("learned_zero_point", raw)) {
    record_backward("qatx::LearnedZeroPointBackward", zero_point, {raw}, {},
                    [](const variable_list&, const at::Tensor& grad) -> variable_list {
                      return {at::nan_to_num(grad, 0.0, 0.0, 0.0)};
                    });
  }
  return zero_point;
}

}  // namespace

TORCH_LIBRARY_IMPL(qatx, Autograd, m) { m.impl("learned_zero_point", forward_autograd); }

}  // namespace qatx
