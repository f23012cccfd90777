#include "qatx/ops/fake_quantize.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/library.h>

namespace qatx {

at::Tensor fake_quantize(const at::Tensor& x, const at::Tensor& scale, const at::Tensor& zero_point,
                         int64_t quant_min, int64_t quant_max, std::optional<int64_t> axis,
                         double grad_scale) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("qatx::fake_quantize", "")
                             .typed<decltype(fake_quantize)>();
  return op.call(x, scale, zero_point, quant_min, quant_max, axis, grad_scale);
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> fake_quantize_backward(
    const at::Tensor& grad, const at::Tensor& x, const at::Tensor& scale,
    const at::Tensor& zero_point, int64_t quant_min, int64_t quant_max, std::optional<int64_t> axis,
    double grad_scale) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("qatx::fake_quantize_backward", "")
                             .typed<decltype(fake_quantize_backward)>();
  return op.call(grad, x, scale, zero_point, quant_min, quant_max, axis, grad_scale);
}

TORCH_LIBRARY_FRAGMENT(qatx, m) {
  m.def(
      "fake_quantize(Tensor x, Tensor scale, Tensor zero_point, int quant_min, int quant_max, "
      "int? axis=None, float grad_scale=1.0) -> Tensor");
  m.def(
      "fake_quantize_backward(Tensor grad, Tensor x, Tensor scale, Tensor zero_point, "
      "int quant_min, int quant_max, int? axis=None, float grad_scale=1.0) "
      "-> (Tensor dx, Tensor dscale, Tensor dzero_point)");
}

}  // namespace qatx
