#include "qatx/ops/scales.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty_like.h>
#include <torch/library.h>

#include <cmath>

#include "qatx/core/checks.h"
#include "qatx/ops/cpu/layout.h"

namespace qatx {
namespace {

template <class Real>
void learned_scale_values(const Real* raw, Real* scale, int64_t n) {
  constexpr Real floor = 0x1p-64;
  constexpr Real ceiling = 0x1p64;
  for (int64_t i = 0; i < n; ++i) {
    const Real magnitude = std::abs(raw[i]);
    const Real at_least = magnitude >= floor ? magnitude : floor;  // NaN too
    scale[i] = at_least <= ceiling ? at_least : ceiling;
  }
}

template <class Real>
void learned_scale_gradients(const Real* grad, const Real* raw, Real* draw, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    const Real reflected = raw[i] < 0 ? -grad[i] : grad[i];
    draw[i] = std::isfinite(grad[i]) ? reflected : Real{0};
  }
}

// body(Real{}, begin, end) for parts of n elements.
template <class Body>
void for_elements(at::ScalarType dtype, int64_t n, const Body& body) {
  at::parallel_for(0, n, kGrain, [&](int64_t begin, int64_t end) {
    if (dtype == at::kFloat) {
      body(float{}, begin, end);
    } else {
      body(double{}, begin, end);
    }
  });
}

at::Tensor forward_cpu(const at::Tensor& raw) {
  check_scale_parameter(raw, "raw");
  const at::Tensor input = dense(raw, {});
  const at::Tensor scale = at::empty_like(input);
  for_elements(raw.scalar_type(), raw.numel(), [&](auto real, int64_t begin, int64_t end) {
    using Real = decltype(real);
    learned_scale_values(input.const_data_ptr<Real>() + begin,
                         scale.mutable_data_ptr<Real>() + begin, end - begin);
  });
  return scale;
}

at::Tensor backward_cpu(const at::Tensor& grad, const at::Tensor& raw) {
  check_scale_parameter(raw, "raw");
  check_grad(grad, raw, "raw");
  const at::Tensor input = dense(raw, {});
  const at::Tensor gradient = beside(grad, input);
  const at::Tensor draw = at::empty_like(input);
  for_elements(raw.scalar_type(), raw.numel(), [&](auto real, int64_t begin, int64_t end) {
    using Real = decltype(real);
    learned_scale_gradients(gradient.const_data_ptr<Real>() + begin,
                            input.const_data_ptr<Real>() + begin,
                            draw.mutable_data_ptr<Real>() + begin, end - begin);
  });
  return draw;
}

}  // namespace

TORCH_LIBRARY_IMPL(qatx, CPU, m) {
  m.impl("learned_scale", forward_cpu);
  m.impl("learned_scale_backward", backward_cpu);
}

}  // namespace qatx
