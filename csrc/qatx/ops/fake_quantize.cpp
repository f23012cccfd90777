#include "qatx/ops/fake_quantize.h"

#include <torch/library.h>

#include "qatx/ops/operator.h"

namespace qatx {

at::Tensor fake_quantize(const at::Tensor& x, const at::Tensor& scale, const at::Tensor& zero_point,
                         int64_t quant_min, int64_t quant_max, std::optional<int64_t> axis,
                         double grad_scale, std::optional<int64_t> group_size, bool pass_through,
                         const std::optional<at::Tensor>& seed) {
  static const auto op = find_operator<decltype(fake_quantize)>("qatx::fake_quantize");
  return op.call(x, scale, zero_point, quant_min, quant_max, axis, grad_scale, group_size,
                 pass_through, seed);
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> fake_quantize_backward(
    const at::Tensor& grad, const at::Tensor& x, const at::Tensor& scale,
    const at::Tensor& zero_point, int64_t quant_min, int64_t quant_max, std::optional<int64_t> axis,
    double grad_scale, std::optional<int64_t> group_size, bool pass_through,
    const std::optional<at::Tensor>& seed) {
  static const auto op =
      find_operator<decltype(fake_quantize_backward)>("qatx::fake_quantize_backward");
  return op.call(grad, x, scale, zero_point, quant_min, quant_max, axis, grad_scale, group_size,
                 pass_through, seed);
}

TORCH_LIBRARY_FRAGMENT(qatx, m) {
  m.def(
      "fake_quantize(Tensor x, Tensor scale, Tensor zero_point, int quant_min, int quant_max, "
      "int? axis=None, float grad_scale=1.0, *, int? group_size=None, bool pass_through=False, "
      "Tensor? seed=None) -> Tensor");
  m.def(
      "fake_quantize.out(Tensor x, Tensor scale, Tensor zero_point, int quant_min, int quant_max, "
      "int? axis=None, float grad_scale=1.0, *, int? group_size=None, bool pass_through=False, "
      "Tensor? seed=None, Tensor(a!) out) -> Tensor(a!)");
  m.def(
      "fake_quantize_backward(Tensor grad, Tensor x, Tensor scale, Tensor zero_point, "
      "int quant_min, int quant_max, int? axis=None, float grad_scale=1.0, *, "
      "int? group_size=None, bool pass_through=False, Tensor? seed=None) "
      "-> (Tensor dx, Tensor dscale, Tensor dzero_point)");
}

}  // namespace qatx
