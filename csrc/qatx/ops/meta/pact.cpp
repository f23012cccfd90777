#include "qatx/ops/pact.h"

#include <ATen/ops/empty_like.h>
#include <torch/library.h>

#include "qatx/core/checks.h"

namespace qatx {
namespace {

void check(const at::Tensor& x, const at::Tensor& alpha, std::optional<int64_t> axis) {
  check_float(x, "x");
  check_qparam(alpha, "alpha", x, check_granularity(x, axis, std::nullopt),
               qparams_dtype(x.scalar_type()));
}

at::Tensor forward_meta(const at::Tensor& x, const at::Tensor& alpha, int64_t quant_max,
                        std::optional<int64_t> axis) {
  check_quant_range(0, quant_max);
  check(x, alpha, axis);
  return at::empty_like(x);
}

std::tuple<at::Tensor, at::Tensor> backward_meta(const at::Tensor& grad, const at::Tensor& x,
                                                 const at::Tensor& alpha,
                                                 std::optional<int64_t> axis) {
  check(x, alpha, axis);
  check_grad(grad, x);
  return {at::empty_like(x), at::empty_like(alpha)};
}

}  // namespace

TORCH_LIBRARY_IMPL(qatx, Meta, m) {
  m.impl("pact", forward_meta);
  m.impl("pact_backward", backward_meta);
}

}  // namespace qatx
