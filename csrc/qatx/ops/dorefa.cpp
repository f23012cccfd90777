#include "qatx/ops/dorefa.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/abs.h>
#include <ATen/ops/amax.h>
#include <ATen/ops/full.h>
#include <ATen/ops/tanh.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include "qatx/core/checks.h"
#include "qatx/ops/fake_quantize.h"
#include "qatx/ops/operator.h"

namespace qatx {
namespace {

at::Tensor composite(const at::Tensor& weight, int64_t bits, std::optional<int64_t> axis) {
  TORCH_CHECK_TYPE(weight.scalar_type() == at::kFloat || weight.scalar_type() == at::kDouble,
                   "weight must be float32 or float64, got ", c10::toString(weight.scalar_type()));
  TORCH_CHECK_VALUE(bits >= 2 && bits <= 8, "bits must be from 2 to 8, got ", bits);
  const Granularity granularity = check_granularity(weight, axis, std::nullopt);
  if (weight.sym_numel() == 0) return weight.clone();
  std::vector<int64_t> others;
  for (int64_t d = 0; d < weight.dim(); ++d) {
    if (granularity.axis != d) others.push_back(d);
  }
  const int64_t n = (int64_t{1} << bits) - 1;
  const at::Tensor t = at::tanh(weight);
  const at::Tensor largest =
      others.empty() ? at::abs(t) : at::amax(at::abs(t), others, /*keepdim=*/true);
  const at::Tensor r = t / (largest.clamp_min(0x1p-64) * 2) + 0.5;
  const at::Tensor scale = at::full({}, 1.0 / static_cast<double>(n), weight.options());
  const at::Tensor q = fake_quantize(r, scale, at::zeros({}, weight.options()), 0, n);
  return q * 2 - 1;
}

}  // namespace

at::Tensor dorefa_weight(const at::Tensor& weight, int64_t bits, std::optional<int64_t> axis) {
  static const auto op = find_operator<decltype(dorefa_weight)>("qatx::dorefa_weight");
  return op.call(weight, bits, axis);
}

TORCH_LIBRARY_FRAGMENT(qatx, m) {
  m.def("dorefa_weight(Tensor weight, int bits, int? axis=None) -> Tensor");
}
TORCH_LIBRARY_IMPL(qatx, CompositeImplicitAutograd, m) { m.impl("dorefa_weight", composite); }

}  // namespace qatx
