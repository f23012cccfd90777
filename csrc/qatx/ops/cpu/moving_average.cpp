#include "qatx/ops/moving_average.h"

#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <cmath>

#include "qatx/core/qparams.h"
#include "qatx/ops/cpu/kernel_arguments.h"
#include "qatx/ops/cpu/range.h"
#include "qatx/ops/fake_quantize.h"

namespace qatx {
namespace {

// `batch` becomes the new running value.
template <class Real>
void average(const at::Tensor& running, const at::Tensor& batch, double constant) {
  const at::Tensor old = running.contiguous();
  const Real* before = data<Real>(old);
  Real* now = mutable_data<Real>(batch);
  for (int64_t i = 0; i < batch.numel(); ++i) {
    const auto old_value = static_cast<double>(before[i]);
    if (!std::isfinite(now[i])) {
      now[i] = before[i];
    } else if (std::isfinite(old_value) && constant < 1.0) {
      now[i] = static_cast<Real>(old_value + constant * (static_cast<double>(now[i]) - old_value));
    }
  }
}

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor> forward_cpu(
    const at::Tensor& x, const at::Tensor& running_min, const at::Tensor& running_max,
    double averaging_constant, int64_t quant_min, int64_t quant_max, bool symmetric,
    std::optional<int64_t> axis) {
  const Granularity granularity = check_moving_average(
      x, running_min, running_max, averaging_constant, quant_min, quant_max, axis);
  at::Tensor min = at::empty(running_min.sizes(), running_min.options());
  at::Tensor max = at::empty(running_max.sizes(), running_max.options());
  find_range(x, granularity, min, max);
  with_element_type(x.scalar_type(), [&](auto element) {
    using Real = typename kernels::RealOf<decltype(element)>::type;
    average<Real>(running_min, min, averaging_constant);
    average<Real>(running_max, max, averaging_constant);
  });
  auto [scale, zero_point] =
      choose_qparams(usable_end(min), usable_end(max), quant_min, quant_max, symmetric);
  at::Tensor y = fake_quantize(x, scale, zero_point, quant_min, quant_max, axis);
  return {y, min, max, scale, zero_point};
}

}  // namespace

TORCH_LIBRARY_IMPL(qatx, CPU, m) { m.impl("moving_average_fake_quantize", forward_cpu); }

}  // namespace qatx
