#pragma once

#include <ATen/core/Tensor.h>
#include <c10/macros/Export.h>

#include <cstdint>
#include <optional>
#include <tuple>

namespace qatx {

// PACT (arXiv 1805.06085): clips to [0, alpha] with a learned alpha, and quantizes that to the
// codes 0 .. quant_max. The forward is fake_quantize with scale = alpha / quant_max and zero_point
// = 0.
//
// - x: as in fake_quantize.
// - alpha: float32 (float64 where x is), one element (no axis) or [x.size(axis)]; alpha / quant_max
//   in [2^-126, 2^126].
// - quant_max: 1 to 255.
//
// Gradients: dx = 0 <= x < alpha ? g : 0, dalpha = sum of g where x >= alpha. Throws c10::Error
// that names the argument.
C10_EXPORT at::Tensor pact(const at::Tensor& x, const at::Tensor& alpha, int64_t quant_max,
                           std::optional<int64_t> axis = std::nullopt);

// (dx, dalpha). Sums as in fake_quantize_backward.
C10_EXPORT std::tuple<at::Tensor, at::Tensor> pact_backward(
    const at::Tensor& grad, const at::Tensor& x, const at::Tensor& alpha,
    std::optional<int64_t> axis = std::nullopt);

// The scale that goes with alpha; checks alpha and quant_max.
C10_EXPORT at::Tensor pact_scale(const at::Tensor& alpha, int64_t quant_max);

}  // namespace qatx
