#include "qatx/ops/fake_quantize.h"

#include <ATen/core/LegacyTypeDispatch.h>
#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>
#include <torch/library.h>

#include "qatx/ops/autograd/node.h"
#include "qatx/ops/operator.h"

namespace qatx {
namespace {

at::Tensor forward_autograd(const at::Tensor& x, const at::Tensor& scale,
                            const at::Tensor& zero_point, int64_t quant_min, int64_t quant_max,
                            std::optional<int64_t> axis, double grad_scale,
                            std::optional<int64_t> group_size, bool pass_through,
                            const std::optional<at::Tensor>& seed) {
  const at::Tensor y = [&] {
    const at::AutoDispatchBelowADInplaceOrView guard;
    return fake_quantize(x, scale, zero_point, quant_min, quant_max, axis, grad_scale, group_size,
                         pass_through, seed);
  }();
  if (requires_gradient("fake_quantize", x, scale, zero_point)) {
    record_backward("qatx::FakeQuantizeBackward", y, {x, scale, zero_point},
                    {x, scale, zero_point, seed.value_or(at::Tensor())},
                    [=](const variable_list& saved, const at::Tensor& grad) -> variable_list {
                      auto [dx, dscale, dzero_point] = fake_quantize_backward(
                          grad, saved[0], saved[1], saved[2], quant_min, quant_max, axis,
                          grad_scale, group_size, pass_through,
                          saved[3].defined() ? std::optional(saved[3]) : std::nullopt);
                      return {dx, dscale, dzero_point};
                    });
  }
  return y;
}

at::Tensor& out_autograd(const at::Tensor& x, const at::Tensor& scale, const at::Tensor& zero_point,
                         int64_t quant_min, int64_t quant_max, std::optional<int64_t> axis,
                         double grad_scale, std::optional<int64_t> group_size, bool pass_through,
                         const std::optional<at::Tensor>& seed, at::Tensor& out) {
  TORCH_CHECK(!requires_gradient("fake_quantize", x, scale, zero_point, out),
              "fake_quantize with out= is not differentiable, but one of its arguments requires a "
              "gradient");
  static const auto op = find_operator<decltype(out_autograd)>("qatx::fake_quantize", "out");
  {
    const at::AutoDispatchBelowADInplaceOrView guard;
    op.call(x, scale, zero_point, quant_min, quant_max, axis, grad_scale, group_size, pass_through,
            seed, out);
  }
  if (!out.is_inference()) torch::autograd::impl::bump_version(out);
  return out;
}

}  // namespace

TORCH_LIBRARY_IMPL(qatx, Autograd, m) {
  m.impl("fake_quantize", forward_autograd);
  m.impl("fake_quantize.out", out_autograd);
  // A second derivative is an error, not a silent zero.
  m.impl("fake_quantize_backward", torch::autograd::autogradNotImplementedFallback());
}

}  // namespace qatx
