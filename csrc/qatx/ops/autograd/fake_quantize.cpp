#include "qatx/ops/fake_quantize.h"

#include <ATen/core/LegacyTypeDispatch.h>
#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

namespace qatx {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

class FakeQuantize : public torch::autograd::Function<FakeQuantize> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, const at::Tensor& scale,
                            const at::Tensor& zero_point, int64_t quant_min, int64_t quant_max,
                            std::optional<int64_t> axis, double grad_scale) {
    at::AutoDispatchBelowADInplaceOrView guard;
    ctx->save_for_backward({x, scale, zero_point});
    ctx->saved_data["quant_min"] = quant_min;
    ctx->saved_data["quant_max"] = quant_max;
    ctx->saved_data["axis"] = axis;
    ctx->saved_data["grad_scale"] = grad_scale;
    return fake_quantize(x, scale, zero_point, quant_min, quant_max, axis, grad_scale);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto saved = ctx->get_saved_variables();
    auto [dx, dscale, dzero_point] = fake_quantize_backward(
        grads[0], saved[0], saved[1], saved[2], ctx->saved_data["quant_min"].toInt(),
        ctx->saved_data["quant_max"].toInt(), ctx->saved_data["axis"].to<std::optional<int64_t>>(),
        ctx->saved_data["grad_scale"].toDouble());
    return {dx, dscale, dzero_point, {}, {}, {}, {}};
  }
};

at::Tensor forward_autograd(const at::Tensor& x, const at::Tensor& scale,
                            const at::Tensor& zero_point, int64_t quant_min, int64_t quant_max,
                            std::optional<int64_t> axis, double grad_scale) {
  return FakeQuantize::apply(x, scale, zero_point, quant_min, quant_max, axis, grad_scale);
}

}  // namespace

TORCH_LIBRARY_IMPL(qatx, Autograd, m) {
  m.impl("fake_quantize", forward_autograd);
  // A second derivative is an error, not a silent zero.
  m.impl("fake_quantize_backward", torch::autograd::autogradNotImplementedFallback());
}

}  // namespace qatx
