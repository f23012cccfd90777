#include "qatx/ops/fake_quantize.h"

#include <ATen/ops/empty_like.h>
#include <torch/library.h>

#include "qatx/core/checks.h"

namespace qatx {
namespace {

at::Tensor forward_meta(const at::Tensor& x, const at::Tensor& scale, const at::Tensor& zero_point,
                        int64_t quant_min, int64_t quant_max, std::optional<int64_t> axis,
                        double /*grad_scale*/, std::optional<int64_t> group_size,
                        bool /*pass_through*/, const std::optional<at::Tensor>& seed) {
  check_fake_quantize(x, scale, zero_point, quant_min, quant_max, axis, group_size);
  check_seed(seed);
  return at::empty_like(x);
}

at::Tensor& out_meta(const at::Tensor& x, const at::Tensor& scale, const at::Tensor& zero_point,
                     int64_t quant_min, int64_t quant_max, std::optional<int64_t> axis,
                     double /*grad_scale*/, std::optional<int64_t> group_size,
                     bool /*pass_through*/, const std::optional<at::Tensor>& seed,
                     at::Tensor& out) {
  check_fake_quantize(x, scale, zero_point, quant_min, quant_max, axis, group_size);
  check_seed(seed);
  check_out(out, x);
  return out;
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> backward_meta(
    const at::Tensor& grad, const at::Tensor& x, const at::Tensor& scale,
    const at::Tensor& zero_point, int64_t quant_min, int64_t quant_max, std::optional<int64_t> axis,
    double /*grad_scale*/, std::optional<int64_t> group_size, bool /*pass_through*/,
    const std::optional<at::Tensor>& seed) {
  check_fake_quantize(x, scale, zero_point, quant_min, quant_max, axis, group_size);
  check_grad(grad, x);
  check_seed(seed);
  return {at::empty_like(x), at::empty_like(scale), at::empty_like(zero_point)};
}

}  // namespace

TORCH_LIBRARY_IMPL(qatx, Meta, m) {
  m.impl("fake_quantize", forward_meta);
  m.impl("fake_quantize.out", out_meta);
  m.impl("fake_quantize_backward", backward_meta);
}

}  // namespace qatx
