#include "qatx/ops/fake_quantize.h"

#include <ATen/MemoryOverlap.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <torch/library.h>

#include "qatx/ops/cpu/kernel_arguments.h"
#include "qatx/ops/cpu/layout.h"

namespace qatx {
namespace {

// input and output lie in memory alike.
template <class T>
void forward(const at::Tensor& input, const at::Tensor& output, const at::Tensor& scale,
             const at::Tensor& zero_point, kernels::QuantRange range,
             const Granularity& granularity, const Noise& noise) {
  const QParamsInUse<T> qparams(scale, zero_point, range);
  if (input.numel() == 0) return;
  const Layout layout(input, granularity);
  const auto& kernels = fake_quantize_kernels<T>();
  const auto kernel = layout.rows() ? kernels.forward_rows : kernels.forward_runs;
  const T* x = data<T>(input);
  T* y = mutable_data<T>(output);
  using OwnScratch = Scratch<typename kernels::RealOf<T>::type>;
  const bool cut = noise.is_used() || !qparams.are_few();
  layout.parallel<OwnScratch>(cut, [&](const Stretch& s, OwnScratch& scratch) {
    kernel(x + s.offset, y + s.offset, s.outer, s.inner,
           qparams.of(s, layout.num_qparams(s), scratch), noise.of(s, scratch));
  });
}

at::Tensor forward_cpu(const at::Tensor& x, const at::Tensor& scale, const at::Tensor& zero_point,
                       int64_t quant_min, int64_t quant_max, std::optional<int64_t> axis,
                       double /*grad_scale*/, std::optional<int64_t> group_size,
                       bool /*pass_through*/, const std::optional<at::Tensor>& seed) {
  const Granularity granularity =
      check_fake_quantize(x, scale, zero_point, quant_min, quant_max, axis, group_size);
  check_seed(seed);
  const at::Tensor input = dense(x, granularity);
  const at::Tensor output = at::empty_like(input);
  with_element_type(x.scalar_type(), [&](auto element) {
    forward<decltype(element)>(input, output, scale, zero_point, quant_range(quant_min, quant_max),
                               granularity, Noise(seed));
  });
  return with_strides_of(output, x);
}

at::Tensor& forward_out_cpu(const at::Tensor& x, const at::Tensor& scale,
                            const at::Tensor& zero_point, int64_t quant_min, int64_t quant_max,
                            std::optional<int64_t> axis, double grad_scale,
                            std::optional<int64_t> group_size, bool pass_through,
                            const std::optional<at::Tensor>& seed, at::Tensor& out) {
  const Granularity granularity =
      check_fake_quantize(x, scale, zero_point, quant_min, quant_max, axis, group_size);
  check_seed(seed);
  check_out(out, x);
  const bool in_place = x.is_non_overlapping_and_dense() && out.strides() == x.strides() &&
                        (!granularity.group_size || x.is_contiguous());
  if (!in_place) {
    return out.copy_(forward_cpu(x, scale, zero_point, quant_min, quant_max, axis, grad_scale,
                                 group_size, pass_through, seed));
  }
  at::assert_no_partial_overlap(out, x);
  at::assert_no_overlap(out, scale);
  at::assert_no_overlap(out, zero_point);
  with_element_type(x.scalar_type(), [&](auto element) {
    forward<decltype(element)>(x, out, scale, zero_point, quant_range(quant_min, quant_max),
                               granularity, Noise(seed));
  });
  return out;
}

template <class T>
void backward(const at::Tensor& gradient, const at::Tensor& input, const at::Tensor& dx,
              at::Tensor& dscale, at::Tensor& dzero_point, const at::Tensor& scale,
              const at::Tensor& zero_point, kernels::QuantRange range,
              const Granularity& granularity, double grad_scale, bool pass_through,
              const Noise& noise) {
  using Real = typename kernels::RealOf<T>::type;
  const QParamsInUse<T> qparams(scale, zero_point, range);
  if (input.numel() == 0) {
    dscale.zero_();
    dzero_point.zero_();
    return;
  }
  const Layout layout(input, granularity);
  const auto& kernels = fake_quantize_kernels<T>();
  const auto kernel = layout.rows() ? kernels.backward_rows : kernels.backward_runs;
  Sums<Real> scale_sums(layout, dscale, kernels.scale_sums, grad_scale);
  Sums<Real> outside_sums(layout, dzero_point, kernels.scale_sums, -grad_scale, qparams.scale());
  const T* g = data<T>(gradient);
  const T* x = data<T>(input);
  T* out = mutable_data<T>(dx);
  layout.parallel<Scratch<Real>>(true, [&](const Stretch& s, Scratch<Real>& scratch) {
    kernel(g + s.offset, x + s.offset, out + s.offset, s.outer, s.inner,
           qparams.of(s, layout.num_qparams(s), scratch), {pass_through, noise.of(s, scratch)},
           scale_sums.part(s), outside_sums.part(s));
    scale_sums.finish(s);
    outside_sums.finish(s);
  });
  scale_sums.finish();
  outside_sums.finish();
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> backward_cpu(
    const at::Tensor& grad, const at::Tensor& x, const at::Tensor& scale,
    const at::Tensor& zero_point, int64_t quant_min, int64_t quant_max, std::optional<int64_t> axis,
    double grad_scale, std::optional<int64_t> group_size, bool pass_through,
    const std::optional<at::Tensor>& seed) {
  const Granularity granularity =
      check_fake_quantize(x, scale, zero_point, quant_min, quant_max, axis, group_size);
  check_grad(grad, x);
  check_seed(seed);
  const at::Tensor input = dense(x, granularity);
  const at::Tensor dx = at::empty_like(input);
  // Gradients of parameters that are not dense (an expanded view, say) are dense.
  at::Tensor dscale = at::empty(scale.sizes(), scale.options());
  at::Tensor dzero_point = at::empty(zero_point.sizes(), zero_point.options());
  with_element_type(x.scalar_type(), [&](auto element) {
    backward<decltype(element)>(beside(grad, input), input, dx, dscale, dzero_point, scale,
                                zero_point, quant_range(quant_min, quant_max), granularity,
                                grad_scale, pass_through, Noise(seed));
  });
  return {with_strides_of(dx, x), dscale, dzero_point};
}

}  // namespace

TORCH_LIBRARY_IMPL(qatx, CPU, m) {
  m.impl("fake_quantize", forward_cpu);
  m.impl("fake_quantize.out", forward_out_cpu);
  m.impl("fake_quantize_backward", backward_cpu);
}

}  // namespace qatx
