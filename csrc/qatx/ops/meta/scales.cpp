#include "qatx/ops/scales.h"

#include <ATen/ops/empty_like.h>
#include <torch/library.h>

#include "qatx/core/checks.h"

namespace qatx {
namespace {

at::Tensor forward_meta(const at::Tensor& raw) {
  check_scale_parameter(raw, "raw");
  return at::empty_like(raw);
}

at::Tensor backward_meta(const at::Tensor& grad, const at::Tensor& raw) {
  check_scale_parameter(raw, "raw");
  check_grad(grad, raw, "raw");
  return at::empty_like(raw);
}

}  // namespace

TORCH_LIBRARY_IMPL(qatx, Meta, m) {
  m.impl("learned_scale", forward_meta);
  m.impl("learned_scale_backward", backward_meta);
}

}  // namespace qatx
