#include "qatx/ops/pact.h"

#include <ATen/core/LegacyTypeDispatch.h>
#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>
#include <torch/library.h>

#include "qatx/ops/autograd/node.h"

namespace qatx {
namespace {

at::Tensor forward_autograd(const at::Tensor& x, const at::Tensor& alpha, int64_t quant_max,
                            std::optional<int64_t> axis) {
  const at::Tensor y = [&] {
    const at::AutoDispatchBelowADInplaceOrView guard;
    return pact(x, alpha, quant_max, axis);
  }();
  if (requires_gradient("pact", x, alpha)) {
    record_backward("qatx::PactBackward", y, {x, alpha}, {x, alpha},
                    [=](const variable_list& saved, const at::Tensor& grad) -> variable_list {
                      auto [dx, dalpha] = pact_backward(grad, saved[0], saved[1], axis);
                      return {dx, dalpha};
                    });
  }
  return y;
}

}  // namespace

TORCH_LIBRARY_IMPL(qatx, Autograd, m) {
  m.impl("pact", forward_autograd);
  // A second derivative is an error, not a silent zero.
  m.impl("pact_backward", torch::autograd::autogradNotImplementedFallback());
}

}  // namespace qatx
