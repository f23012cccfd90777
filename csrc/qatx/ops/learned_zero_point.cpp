#include "qatx/ops/learned_zero_point.h"

#include <ATen/ops/nan_to_num.h>
#include <torch/library.h>

#include <limits>

#include "qatx/core/checks.h"
#include "qatx/ops/operator.h"

namespace qatx {
namespace {

at::Tensor composite(const at::Tensor& raw) {
  check_float(raw, "raw");
  constexpr double inf = std::numeric_limits<double>::infinity();
  return at::nan_to_num(raw, 0.0, inf, -inf);
}

}  // namespace

at::Tensor learned_zero_point(const at::Tensor& raw) {
  static const auto op = find_operator<decltype(learned_zero_point)>("qatx::learned_zero_point");
  return op.call(raw);
}

TORCH_LIBRARY_FRAGMENT(qatx, m) { m.def("learned_zero_point(Tensor raw) -> Tensor"); }
// Composed of ATen operators, so one implementation serves every device and fake tensors.
TORCH_LIBRARY_IMPL(qatx, CompositeExplicitAutograd, m) { m.impl("learned_zero_point", composite); }

}  // namespace qatx
