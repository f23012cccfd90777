#include "qatx/ops/quantize.h"

#include <ATen/ops/empty_like.h>
#include <torch/library.h>

#include "qatx/core/checks.h"

namespace qatx {
namespace {

at::Tensor quantize_meta(const at::Tensor& x, const at::Tensor& scale, const at::Tensor& zero_point,
                         int64_t quant_min, int64_t quant_max, std::optional<int64_t> axis,
                         std::optional<int64_t> group_size) {
  check_fake_quantize(x, scale, zero_point, quant_min, quant_max, axis, group_size);
  return at::empty_like(x, x.options().dtype(quant_min < 0 ? at::kChar : at::kByte));
}

at::Tensor dequantize_meta(const at::Tensor& codes, const at::Tensor& scale,
                           const at::Tensor& zero_point, std::optional<int64_t> axis,
                           std::optional<int64_t> group_size, at::ScalarType dtype) {
  check_dequantize(codes, scale, zero_point, axis, group_size, dtype);
  return at::empty_like(codes, codes.options().dtype(dtype));
}

}  // namespace

TORCH_LIBRARY_IMPL(qatx, Meta, m) {
  m.impl("quantize", quantize_meta);
  m.impl("dequantize", dequantize_meta);
}

}  // namespace qatx
