#include "qatx/ops/moving_average.h"

#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <cmath>
#include <limits>

#include "qatx/core/qparams.h"
#include "qatx/ops/cpu/kernel_arguments.h"
#include "qatx/ops/cpu/layout.h"
#include "qatx/ops/fake_quantize.h"

namespace qatx {
namespace {

// The range of each channel's finite elements; +Inf and -Inf where there is none.
template <class T>
void range_of(const at::Tensor& x, const Granularity& granularity, const at::Tensor& min,
              const at::Tensor& max) {
  using Real = typename kernels::RealOf<T>::type;
  min.fill_(std::numeric_limits<double>::infinity());
  max.fill_(-std::numeric_limits<double>::infinity());
  if (x.numel() == 0) return;
  const at::Tensor input = dense(x, granularity);
  const Layout layout(input, granularity);
  const auto& kernels = fake_quantize_kernels<T>();
  const auto kernel = layout.rows() ? kernels.range_rows : kernels.range_runs;
  std::vector<Real> mins(static_cast<size_t>(layout.num_partials()));
  std::vector<Real> maxs(mins.size());
  layout.parallel<NoScratch>(true, [&](const Stretch& s, NoScratch&) {
    kernel(data<T>(input) + s.offset, s.outer, s.inner, mins.data() + s.partial,
           maxs.data() + s.partial);
  });
  Real* low = mutable_data<Real>(min);
  Real* high = mutable_data<Real>(max);
  layout.for_partials([&](int64_t partial, int64_t p) {
    const auto i = static_cast<size_t>(partial);
    low[p] = std::min(low[p], mins[i]);
    high[p] = std::max(high[p], maxs[i]);
  });
}

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

// Where nothing finite was ever seen: [0, 0].
at::Tensor usable(const at::Tensor& running) { return running.masked_fill(running.isinf(), 0.0); }

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor> forward_cpu(
    const at::Tensor& x, const at::Tensor& running_min, const at::Tensor& running_max,
    double averaging_constant, int64_t quant_min, int64_t quant_max, bool symmetric,
    std::optional<int64_t> axis) {
  const Granularity granularity = check_moving_average(
      x, running_min, running_max, averaging_constant, quant_min, quant_max, axis);
  at::Tensor min = at::empty(running_min.sizes(), running_min.options());
  at::Tensor max = at::empty(running_max.sizes(), running_max.options());
  with_element_type(x.scalar_type(), [&](auto element) {
    using T = decltype(element);
    range_of<T>(x, granularity, min, max);
    average<typename kernels::RealOf<T>::type>(running_min, min, averaging_constant);
    average<typename kernels::RealOf<T>::type>(running_max, max, averaging_constant);
  });
  auto [scale, zero_point] =
      choose_qparams(usable(min), usable(max), quant_min, quant_max, symmetric);
  at::Tensor y = fake_quantize(x, scale, zero_point, quant_min, quant_max, axis);
  return {y, min, max, scale, zero_point};
}

}  // namespace

TORCH_LIBRARY_IMPL(qatx, CPU, m) { m.impl("moving_average_fake_quantize", forward_cpu); }

}  // namespace qatx
