#include "qatx/ops/dynamic_fake_quantize.h"

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/zeros_like.h>
#include <torch/library.h>

#include "qatx/ops/autograd/node.h"
#include "qatx/ops/fake_quantize.h"
#include "qatx/ops/rows.h"

namespace qatx {
namespace {

std::tuple<at::Tensor, at::Tensor> forward_autograd(const at::Tensor& x, int64_t quant_max) {
  const auto result = [&] {
    const at::AutoDispatchBelowADInplaceOrView guard;
    return dynamic_fake_quantize(x, quant_max);
  }();
  if (requires_gradient("dynamic_fake_quantize", x)) {
    record_backward("qatx::DynamicFakeQuantizeBackward", std::get<0>(result), {x},
                    {x, std::get<1>(result)},
                    [=](const variable_list& saved, const at::Tensor& grad) -> variable_list {
                      const at::Tensor scale = saved[1].flatten();
                      const auto gradients =
                          fake_quantize_backward(as_rows(grad), as_rows(saved[0]), scale,
                                                 at::zeros_like(scale), -quant_max, quant_max, 0);
                      return {std::get<0>(gradients).reshape_symint(saved[0].sym_sizes())};
                    });
  }
  return result;
}

}  // namespace

TORCH_LIBRARY_IMPL(qatx, Autograd, m) { m.impl("dynamic_fake_quantize", forward_autograd); }

}  // namespace qatx
