#include "qatx/ops/quantize.h"

#include <ATen/ops/empty_like.h>
#include <torch/library.h>

#include "qatx/ops/cpu/kernel_arguments.h"
#include "qatx/ops/cpu/layout.h"

namespace qatx {
namespace {

at::Tensor quantize_cpu(const at::Tensor& x, const at::Tensor& scale, const at::Tensor& zero_point,
                        int64_t quant_min, int64_t quant_max, std::optional<int64_t> axis,
                        std::optional<int64_t> group_size) {
  const Granularity granularity =
      check_fake_quantize(x, scale, zero_point, quant_min, quant_max, axis, group_size);
  const at::Tensor input = dense(x, granularity);
  const at::Tensor codes = empty_beside(input, quant_min < 0 ? at::kChar : at::kByte);
  with_element_type(x.scalar_type(), [&](auto element) {
    using T = decltype(element);
    const kernels::QuantRange range = quant_range(quant_min, quant_max);
    const QParamsInUse<T> qparams(scale, zero_point, range);
    if (input.numel() == 0) return;
    const Layout layout(input, granularity);
    const auto& kernels = fake_quantize_kernels<T>();
    const auto kernel = layout.rows() ? kernels.quantize_rows : kernels.quantize_runs;
    using OwnScratch = Scratch<typename kernels::RealOf<T>::type>;
    layout.parallel<OwnScratch>(!qparams.are_few(), [&](const Stretch& s, OwnScratch& scratch) {
      kernel(data<T>(input) + s.offset, mutable_data<uint8_t>(codes) + s.offset, s.outer, s.inner,
             qparams.of(s, layout.num_qparams(s), scratch), range);
    });
  });
  return with_strides_of(codes, x);
}

at::Tensor dequantize_cpu(const at::Tensor& codes, const at::Tensor& scale,
                          const at::Tensor& zero_point, std::optional<int64_t> axis,
                          std::optional<int64_t> group_size, at::ScalarType dtype) {
  const Granularity granularity =
      check_dequantize(codes, scale, zero_point, axis, group_size, dtype);
  const bool is_signed = codes.scalar_type() == at::kChar;
  const at::Tensor input = dense(codes, granularity);
  const at::Tensor y = empty_beside(input, dtype);
  with_element_type(dtype, [&](auto element) {
    using T = decltype(element);
    const kernels::QuantRange range = is_signed ? quant_range(-128, 127) : quant_range(0, 255);
    const QParamsInUse<T> qparams(scale, zero_point, range);
    if (input.numel() == 0) return;
    const Layout layout(input, granularity);
    const auto& kernels = fake_quantize_kernels<T>();
    const auto kernel = layout.rows() ? kernels.dequantize_rows : kernels.dequantize_runs;
    using OwnScratch = Scratch<typename kernels::RealOf<T>::type>;
    layout.parallel<OwnScratch>(!qparams.are_few(), [&](const Stretch& s, OwnScratch& scratch) {
      kernel(data<uint8_t>(input) + s.offset, is_signed, mutable_data<T>(y) + s.offset, s.outer,
             s.inner, qparams.of(s, layout.num_qparams(s), scratch), range);
    });
  });
  return with_strides_of(y, codes);
}

}  // namespace

TORCH_LIBRARY_IMPL(qatx, CPU, m) {
  m.impl("quantize", quantize_cpu);
  m.impl("dequantize", dequantize_cpu);
}

}  // namespace qatx
