#include "qatx/ops/cpu/range.h"

#include <cmath>
#include <limits>

#include "qatx/ops/cpu/kernel_arguments.h"
#include "qatx/ops/cpu/layout.h"

namespace qatx {
namespace {

template <class T>
void find(const at::Tensor& x, const Granularity& granularity, const at::Tensor& min,
          const at::Tensor& max) {
  using Real = typename kernels::RealOf<T>::type;
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

}  // namespace

void find_range(const at::Tensor& x, const Granularity& granularity, const at::Tensor& min,
                const at::Tensor& max) {
  min.fill_(std::numeric_limits<double>::infinity());
  max.fill_(-std::numeric_limits<double>::infinity());
  if (x.numel() == 0) return;
  with_element_type(x.scalar_type(),
                    [&](auto element) { find<decltype(element)>(x, granularity, min, max); });
}

at::Tensor usable_end(const at::Tensor& end) { return end.masked_fill(end.isinf(), 0.0); }

}  // namespace qatx
