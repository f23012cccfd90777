#include "qatx/ops/pact.h"

#include <ATen/TensorOperators.h>
#include <torch/library.h>

#include "qatx/core/rounding.h"
#include "qatx/ops/operator.h"

namespace qatx {

at::Tensor pact(const at::Tensor& x, const at::Tensor& alpha, int64_t quant_max,
                std::optional<int64_t> axis) {
  static const auto op = find_operator<decltype(pact)>("qatx::pact");
  return op.call(x, alpha, quant_max, axis);
}

std::tuple<at::Tensor, at::Tensor> pact_backward(const at::Tensor& grad, const at::Tensor& x,
                                                 const at::Tensor& alpha,
                                                 std::optional<int64_t> axis) {
  static const auto op = find_operator<decltype(pact_backward)>("qatx::pact_backward");
  return op.call(grad, x, alpha, axis);
}

at::Tensor pact_scale(const at::Tensor& alpha, int64_t quant_max) {
  const at::Tensor scale = alpha / quant_max;
  const at::Tensor values = scale.to(at::kDouble).contiguous();
  const double* s = values.const_data_ptr<double>();
  for (int64_t i = 0; i < values.numel(); ++i) {
    TORCH_CHECK_VALUE(
        s[i] >= kMinScale && s[i] <= kMaxScale, "alpha[", i,
        "] must be positive and finite, and alpha / quant_max in [2^-126, 2^126], got ",
        alpha.flatten()[i].item<double>());
  }
  return scale;
}

TORCH_LIBRARY_FRAGMENT(qatx, m) {
  m.def("pact(Tensor x, Tensor alpha, int quant_max, int? axis=None) -> Tensor");
  m.def(
      "pact_backward(Tensor grad, Tensor x, Tensor alpha, int? axis=None) "
      "-> (Tensor dx, Tensor dalpha)");
}

}  // namespace qatx
