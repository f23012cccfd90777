#include "qatx/ptq/channel_scales.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/where.h>

namespace qatx::ptq {
namespace {

void check(const at::Tensor& t, const char* name, const at::Tensor& like) {
  TORCH_CHECK_VALUE(t.dim() == 1 && t.sizes() == like.sizes(), name,
                    " must have one dimension and the size of the other magnitudes, got ",
                    t.sizes(), " beside ", like.sizes());
  TORCH_CHECK_VALUE(t.isfinite().all().item<bool>() && t.ge(0).all().item<bool>(), name,
                    " must be finite and not negative");
}

at::Tensor finish(const at::Tensor& scales, const at::Tensor& a, const at::Tensor& b) {
  constexpr double bound = 0x1p32;
  return at::where((a > 0).logical_and(b > 0), scales.clamp(1.0 / bound, bound), 1.0);
}

}  // namespace

at::Tensor equalization_scales(const at::Tensor& made, const at::Tensor& read) {
  check(made, "made", read);
  check(read, "read", made);
  const at::Tensor a = made.to(at::kDouble);
  const at::Tensor b = read.to(at::kDouble);
  return finish((a / b).sqrt(), a, b);
}

at::Tensor migration_scales(const at::Tensor& value, const at::Tensor& read, double alpha) {
  TORCH_CHECK_VALUE(alpha >= 0 && alpha <= 1, "alpha must be from 0 to 1, got ", alpha);
  check(value, "value", read);
  check(read, "read", value);
  const at::Tensor a = value.to(at::kDouble);
  const at::Tensor b = read.to(at::kDouble);
  return finish(a.pow(alpha) / b.pow(1.0 - alpha), a, b);
}

}  // namespace qatx::ptq
