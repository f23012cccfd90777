#pragma once

#include <ATen/core/Tensor.h>
#include <c10/macros/Export.h>

#include <cstdint>
#include <optional>

namespace qatx {

// Checks of operators' arguments that need no data, so that they serve meta and fake tensors too.
// All throw c10::Error (ValueError or TypeError in Python) that names the argument, what it was and
// what is allowed.

// Which elements of x share quantization parameters: all (no axis), those with one index along
// `axis`, or those that differ only in their index along `axis`, within groups of group_size.
struct Granularity {
  std::optional<int64_t> axis;  // counted from the front
  std::optional<int64_t> group_size;
};

// Codes of 8 bits, signed or unsigned.
C10_EXPORT void check_quant_range(int64_t quant_min, int64_t quant_max);

// float32, bfloat16, float16 or float64.
C10_EXPORT void check_float(const at::Tensor& x, const char* name);

// axis may be negative; group_size needs an axis.
C10_EXPORT Granularity check_granularity(const at::Tensor& x, std::optional<int64_t> axis,
                                         std::optional<int64_t> group_size);

// The dtype of parameters for x of dtype `x`: float64 for float64, otherwise float32.
C10_EXPORT at::ScalarType qparams_dtype(at::ScalarType x);

// `t` has dtype, the device of x, and one element for each set of elements of x that share
// parameters: shape [] or [1], [channels], or that of x with ceil(size / group_size) along the
// axis.
C10_EXPORT void check_qparam(const at::Tensor& t, const char* name, const at::Tensor& x,
                             const Granularity& granularity, at::ScalarType dtype);

// All of the above for x, scale and zero_point.
C10_EXPORT Granularity check_fake_quantize(const at::Tensor& x, const at::Tensor& scale,
                                           const at::Tensor& zero_point, int64_t quant_min,
                                           int64_t quant_max, std::optional<int64_t> axis,
                                           std::optional<int64_t> group_size = std::nullopt);

// The same for integer codes (int8 or uint8) that become `dtype`.
C10_EXPORT Granularity check_dequantize(const at::Tensor& codes, const at::Tensor& scale,
                                        const at::Tensor& zero_point, std::optional<int64_t> axis,
                                        std::optional<int64_t> group_size, at::ScalarType dtype);

// The same for x and a moving average of its range.
C10_EXPORT Granularity check_moving_average(const at::Tensor& x, const at::Tensor& running_min,
                                            const at::Tensor& running_max,
                                            double averaging_constant, int64_t quant_min,
                                            int64_t quant_max, std::optional<int64_t> axis);

// The same for x and the last code of rows that are quantized by their own range.
C10_EXPORT void check_dynamic_fake_quantize(const at::Tensor& x, int64_t quant_max);

// A learned scale or what it is made of: float32 or float64.
C10_EXPORT void check_scale_parameter(const at::Tensor& t, const char* name);

// The gradient of something like x.
C10_EXPORT void check_grad(const at::Tensor& grad, const at::Tensor& x, const char* x_name = "x");

// A place for a result like x.
C10_EXPORT void check_out(const at::Tensor& out, const at::Tensor& x);

// An int64 tensor with one element, where there is one.
C10_EXPORT void check_seed(const std::optional<at::Tensor>& seed);

}  // namespace qatx
