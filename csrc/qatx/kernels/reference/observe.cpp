#include "qatx/kernels/observe.h"

#include <cmath>
#include <limits>

#include "qatx/kernels/implementations.h"

namespace qatx::kernels {
namespace {

template <class T>
auto statistics(const T* x, int64_t n) {
  using Real = typename RealOf<T>::type;
  constexpr Real infinity = std::numeric_limits<Real>::infinity();
  BlockStatistics<Real> result{infinity, -infinity, 0, 0, 0};
  Real lanes[kLanes] = {};
  for (int64_t i = 0; i < n; ++i) {
    const Real value = to_real(x[i]) + 0;  // no -0
    if (!std::isfinite(value)) continue;
    ++result.finite;
    result.zeros += value == 0;
    result.min = value < result.min ? value : result.min;
    result.max = value > result.max ? value : result.max;
    lanes[i % kLanes] += std::abs(value);
  }
  for (int width = kLanes / 2; width > 0; width /= 2) {
    for (int i = 0; i < width; ++i) lanes[i] += lanes[i + width];
  }
  result.sum_magnitude = lanes[0];
  return result;
}

template <class T>
void count(const T* x, int64_t n, typename RealOf<T>::type inv_width, int32_t bins,
           uint32_t* counts) {
  for (int64_t i = 0; i < n; ++i) {
    const auto value = to_real(x[i]);
    if (value == 0 || !std::isfinite(value)) continue;
    const auto bin = static_cast<int32_t>(std::abs(value) * inv_width);
    ++counts[bin + (value < 0 ? bins : 0)];
  }
}

template <class T>
constexpr ObserveKernels<T> kernels_for = {statistics<T>, count<T>};

}  // namespace

const ObserveTable reference::observe = {kernels_for<float>, kernels_for<BFloat16>,
                                         kernels_for<Half>};
const ObserveKernels<double> reference::observe_f64 = kernels_for<double>;

}  // namespace qatx::kernels
