#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "qatx/core/quant_spec.h"

namespace qatx {

// Turns ranges into quantization parameters; the only place that does.
//
// min, max: float32 tensors of one shape ([] or [channels]), finite, min <= max. Ranges are first
// widened to hold 0, so that 0.0 is exactly representable. Returns (scale, zero_point), float32, of
// that shape; zero_point holds integers.
//
// - symmetric: zero_point is the middle code (0 when signed, 2^(bits-1) when unsigned), and scale =
//   max(-min, max) / (quant_max - zero_point), so that -x and x get opposite codes.
// - asymmetric: scale = (max - min) / (quant_max - quant_min), and zero_point = rint(quant_min -
//   min / scale), clamped.
//
// An all-zero range gives scale 1; tiny and huge ranges are kept inside the valid scales
// (core/rounding.h). Throws c10::Error for other dtypes, shapes and ranges.
C10_EXPORT std::pair<at::Tensor, at::Tensor> choose_qparams(const at::Tensor& min,
                                                            const at::Tensor& max,
                                                            const QuantSpec& spec);

// Checks the arguments of fake_quantize that need no data (so it serves meta and fake tensors too)
// and returns the axis counted from the front. Throws c10::Error (ValueError or TypeError in
// Python) that names the argument, what it was and what is allowed.
C10_EXPORT std::optional<int64_t> check_fake_quantize(const at::Tensor& x, const at::Tensor& scale,
                                                      const at::Tensor& zero_point,
                                                      int64_t quant_min, int64_t quant_max,
                                                      std::optional<int64_t> axis);
C10_EXPORT void check_fake_quantize_grad(const at::Tensor& grad, const at::Tensor& x);

// The values in use, one for each channel.
struct CheckedQParams {
  std::vector<float> scale;
  std::vector<float> inv_scale;
  std::vector<float> zero_point;  // rounded and clamped
};

// Reads and checks values: scale in [2^-126, 2^126], zero_point not NaN.
C10_EXPORT CheckedQParams read_qparams(const at::Tensor& scale, const at::Tensor& zero_point,
                                       int64_t quant_min, int64_t quant_max);

}  // namespace qatx
