#pragma once

#include <ATen/core/Tensor.h>
#include <c10/macros/Export.h>

#include <cstdint>
#include <optional>
#include <tuple>

namespace qatx {

// Quantizes and dequantizes x, so that training sees the error of quantization:
//   q = clamp(rint(x / scale) + zero_point, quant_min, quant_max),  y = (q - zero_point) * scale
// (docs/numerics.md has the exact float operations, and NaN and infinities).
//
// - x: float32, bfloat16, float16 (arithmetic in float32, y rounded once) or float64, on the CPU,
//   any shape and strides; y has the same.
// - scale: float32 (float64 where x is); one element (no axis), [x.size(axis)], or, with
// group_size,
//   x's shape with ceil(size / group_size) along the axis; each in [2^-126, 2^126].
// - zero_point: like scale; rounded to the nearest integer, ties to even, and clamped to
//   [quant_min, quant_max].
// - quant_min, quant_max: within -128..127 or 0..255.
// - axis: the dimension whose indices have their own scale; nullopt: per tensor.
// - grad_scale: factor on the gradients of scale and zero_point; 1/sqrt(N * quant_max) in LSQ.
// - group_size: scales for groups of that many elements along the axis, at every index of the other
//   dimensions; the last group may be smaller.
// - pass_through: the gradient of x is that of y everywhere, not only inside the range.
// - seed: int64, one element: rounds stochastically (up with the probability of the fraction), by
//   numbers that depend on the seed and on an element's position in memory only.
//
// Gradients: straight through inside the range and zero outside for x; LSQ's (arXiv 1902.08153,
// equation 3) for scale; LSQ+'s (arXiv 2004.09576) for zero_point. Throws c10::Error that names the
// argument.
C10_EXPORT at::Tensor fake_quantize(const at::Tensor& x, const at::Tensor& scale,
                                    const at::Tensor& zero_point, int64_t quant_min,
                                    int64_t quant_max, std::optional<int64_t> axis = std::nullopt,
                                    double grad_scale = 1.0,
                                    std::optional<int64_t> group_size = std::nullopt,
                                    bool pass_through = false,
                                    const std::optional<at::Tensor>& seed = std::nullopt);

// (dx, dscale, dzero_point) for the gradient `grad` of y. An operator of its own, so that it is
// tested without autograd. The sums run over fixed blocks in a fixed order: the same bits for any
// number of threads.
C10_EXPORT std::tuple<at::Tensor, at::Tensor, at::Tensor> fake_quantize_backward(
    const at::Tensor& grad, const at::Tensor& x, const at::Tensor& scale,
    const at::Tensor& zero_point, int64_t quant_min, int64_t quant_max,
    std::optional<int64_t> axis = std::nullopt, double grad_scale = 1.0,
    std::optional<int64_t> group_size = std::nullopt, bool pass_through = false,
    const std::optional<at::Tensor>& seed = std::nullopt);

}  // namespace qatx
