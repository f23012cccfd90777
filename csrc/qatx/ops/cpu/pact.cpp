#include "qatx/ops/pact.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros_like.h>
#include <torch/library.h>

#include "qatx/ops/cpu/kernel_arguments.h"
#include "qatx/ops/cpu/layout.h"
#include "qatx/ops/fake_quantize.h"

namespace qatx {
namespace {

Granularity check(const at::Tensor& x, const at::Tensor& alpha, std::optional<int64_t> axis) {
  check_float(x, "x");
  const Granularity granularity = check_granularity(x, axis, std::nullopt);
  check_qparam(alpha, "alpha", x, granularity, qparams_dtype(x.scalar_type()));
  return granularity;
}

at::Tensor forward_cpu(const at::Tensor& x, const at::Tensor& alpha, int64_t quant_max,
                       std::optional<int64_t> axis) {
  check_quant_range(0, quant_max);
  check(x, alpha, axis);
  const at::Tensor scale = pact_scale(alpha, quant_max);
  return fake_quantize(x, scale, at::zeros_like(scale), 0, quant_max, axis);
}

template <class T>
void backward(const at::Tensor& gradient, const at::Tensor& input, const at::Tensor& dx,
              const at::Tensor& alpha, at::Tensor& dalpha, const Granularity& granularity) {
  using Real = typename kernels::RealOf<T>::type;
  const Layout layout(input, granularity);
  const auto& kernels = fake_quantize_kernels<T>();
  const auto kernel = layout.rows() ? kernels.clip_backward_rows : kernels.clip_backward_runs;
  Sums<Real> sums(layout, dalpha, kernels.scale_sums);
  const at::Tensor alphas = alpha.contiguous();
  layout.parallel<NoScratch>(true, [&](const Stretch& s, NoScratch&) {
    kernel(data<T>(gradient) + s.offset, data<T>(input) + s.offset, mutable_data<T>(dx) + s.offset,
           s.outer, s.inner, data<Real>(alphas) + s.qparams, sums.part(s));
    sums.finish(s);
  });
  sums.finish();
}

std::tuple<at::Tensor, at::Tensor> backward_cpu(const at::Tensor& grad, const at::Tensor& x,
                                                const at::Tensor& alpha,
                                                std::optional<int64_t> axis) {
  const Granularity granularity = check(x, alpha, axis);
  check_grad(grad, x);
  const at::Tensor input = dense(x, granularity);
  const at::Tensor dx = at::empty_like(input);
  at::Tensor dalpha = at::empty(alpha.sizes(), alpha.options());
  if (x.numel() == 0) return {dx, dalpha.zero_()};
  with_element_type(x.scalar_type(), [&](auto element) {
    backward<decltype(element)>(beside(grad, input), input, dx, alpha, dalpha, granularity);
  });
  return {dx, dalpha};
}

}  // namespace

TORCH_LIBRARY_IMPL(qatx, CPU, m) {
  m.impl("pact", forward_cpu);
  m.impl("pact_backward", backward_cpu);
}

}  // namespace qatx
