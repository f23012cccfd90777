#include "qatx/ops/quantize.h"

#include <torch/library.h>

#include "qatx/ops/operator.h"

namespace qatx {

at::Tensor quantize(const at::Tensor& x, const at::Tensor& scale, const at::Tensor& zero_point,
                    int64_t quant_min, int64_t quant_max, std::optional<int64_t> axis,
                    std::optional<int64_t> group_size) {
  static const auto op = find_operator<decltype(quantize)>("qatx::quantize");
  return op.call(x, scale, zero_point, quant_min, quant_max, axis, group_size);
}

at::Tensor dequantize(const at::Tensor& codes, const at::Tensor& scale,
                      const at::Tensor& zero_point, std::optional<int64_t> axis,
                      std::optional<int64_t> group_size, at::ScalarType dtype) {
  static const auto op = find_operator<decltype(dequantize)>("qatx::dequantize");
  return op.call(codes, scale, zero_point, axis, group_size, dtype);
}

at::Tensor quantize_dequantize(const at::Tensor& x, const at::Tensor& scale,
                               const at::Tensor& zero_point, int64_t quant_min, int64_t quant_max,
                               std::optional<int64_t> axis, std::optional<int64_t> group_size) {
  static const auto op = find_operator<decltype(quantize_dequantize)>("qatx::quantize_dequantize");
  return op.call(x, scale, zero_point, quant_min, quant_max, axis, group_size);
}

namespace {

at::Tensor quantize_dequantize_composite(const at::Tensor& x, const at::Tensor& scale,
                                         const at::Tensor& zero_point, int64_t quant_min,
                                         int64_t quant_max, std::optional<int64_t> axis,
                                         std::optional<int64_t> group_size) {
  const at::Tensor codes = quantize(x, scale, zero_point, quant_min, quant_max, axis, group_size);
  const at::Tensor in_use = zero_point.round().clamp(quant_min, quant_max);
  return dequantize(codes, scale, in_use, axis, group_size, x.scalar_type());
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(qatx, m) {
  m.def(
      "quantize(Tensor x, Tensor scale, Tensor zero_point, int quant_min, int quant_max, "
      "int? axis=None, *, int? group_size=None) -> Tensor");
  m.def(
      "dequantize(Tensor codes, Tensor scale, Tensor zero_point, int? axis=None, *, "
      "int? group_size=None, ScalarType dtype=float) -> Tensor");
  m.def(
      "quantize_dequantize(Tensor x, Tensor scale, Tensor zero_point, int quant_min, "
      "int quant_max, int? axis=None, *, int? group_size=None) -> Tensor");
}
TORCH_LIBRARY_IMPL(qatx, CompositeExplicitAutograd, m) {
  m.impl("quantize_dequantize", quantize_dequantize_composite);
}

}  // namespace qatx
