#include "qatx/ops/fake_quantize.h"

#include <ATen/ops/empty_like.h>
#include <torch/library.h>

#include "qatx/core/qparams.h"

namespace qatx {
namespace {

at::Tensor forward_meta(const at::Tensor& x, const at::Tensor& scale, const at::Tensor& zero_point,
                        int64_t quant_min, int64_t quant_max, std::optional<int64_t> axis,
                        double /*grad_scale*/) {
  check_fake_quantize(x, scale, zero_point, quant_min, quant_max, axis);
  return at::empty_like(x);
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> backward_meta(
    const at::Tensor& grad, const at::Tensor& x, const at::Tensor& scale,
    const at::Tensor& zero_point, int64_t quant_min, int64_t quant_max, std::optional<int64_t> axis,
    double /*grad_scale*/) {
  check_fake_quantize(x, scale, zero_point, quant_min, quant_max, axis);
  check_fake_quantize_grad(grad, x);
  return {at::empty_like(x), at::empty_like(scale), at::empty_like(zero_point)};
}

}  // namespace

TORCH_LIBRARY_IMPL(qatx, Meta, m) {
  m.impl("fake_quantize", forward_meta);
  m.impl("fake_quantize_backward", backward_meta);
}

}  // namespace qatx
