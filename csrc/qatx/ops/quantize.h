#pragma once

#include <ATen/core/Tensor.h>
#include <c10/macros/Export.h>

#include <cstdint>
#include <optional>

namespace qatx {

// Integer codes as plain int8 and uint8 tensors. Arguments as in fake_quantize; nothing here has a
// gradient.

// q = clamp(rint(x / scale) + zero_point, quant_min, quant_max); int8 where quant_min < 0,
// otherwise uint8. NaN becomes zero_point.
C10_EXPORT at::Tensor quantize(const at::Tensor& x, const at::Tensor& scale,
                               const at::Tensor& zero_point, int64_t quant_min, int64_t quant_max,
                               std::optional<int64_t> axis = std::nullopt,
                               std::optional<int64_t> group_size = std::nullopt);

// (codes - zero_point) * scale, in dtype (float32, bfloat16, float16, or float64 with parameters in
// float64). zero_point is rounded and clamped to the codes of the dtype, -128..127 or 0..255.
C10_EXPORT at::Tensor dequantize(const at::Tensor& codes, const at::Tensor& scale,
                                 const at::Tensor& zero_point,
                                 std::optional<int64_t> axis = std::nullopt,
                                 std::optional<int64_t> group_size = std::nullopt,
                                 at::ScalarType dtype = at::kFloat);

// dequantize(quantize(x)) in the dtype of x: fake_quantize, but 0 for NaN.
C10_EXPORT at::Tensor quantize_dequantize(const at::Tensor& x, const at::Tensor& scale,
                                          const at::Tensor& zero_point, int64_t quant_min,
                                          int64_t quant_max,
                                          std::optional<int64_t> axis = std::nullopt,
                                          std::optional<int64_t> group_size = std::nullopt);

}  // namespace qatx
