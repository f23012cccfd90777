#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <utility>
#include <vector>

#include "qatx/core/quant_spec.h"

namespace qatx {

// Turns ranges into quantization parameters; the only place that does.
//
// min, max: tensors of one shape and dtype, float32 or float64, finite, min <= max. Ranges are
// first widened to hold 0, so that 0.0 is exactly representable. Returns (scale, zero_point) of
// that shape and dtype; zero_point holds integers.
//
// - symmetric: zero_point is the middle code (0 when quant_min < 0, else (quant_max + 1) / 2), and
// scale =
//   max(-min, max) / (quant_max - zero_point), so that -x and x get opposite codes.
// - asymmetric: scale = (max - min) / (quant_max - quant_min), and zero_point = rint(quant_min -
//   min / scale), clamped.
//
// An all-zero range gives scale 1; tiny and huge ranges are kept inside the valid scales
// (core/rounding.h). Throws c10::Error for other dtypes, shapes and ranges.
C10_EXPORT std::pair<at::Tensor, at::Tensor> choose_qparams(const at::Tensor& min,
                                                            const at::Tensor& max,
                                                            int64_t quant_min, int64_t quant_max,
                                                            bool symmetric);
C10_EXPORT std::pair<at::Tensor, at::Tensor> choose_qparams(const at::Tensor& min,
                                                            const at::Tensor& max,
                                                            const QuantSpec& spec);

// The same for one range, low <= high, in float32. Nothing is checked.
std::pair<float, float> choose_qparams(double low, double high, int64_t quant_min,
                                       int64_t quant_max, bool symmetric);

// Throws c10::Error (ValueError in Python) that names the element unless every scale is in [2^-126,
// 2^126] and no zero point is NaN.
C10_EXPORT void check_qparams_values(const at::Tensor& scale, const at::Tensor& zero_point);

// The values in use, one for each channel.
struct CheckedQParams {
  std::vector<float> scale;
  std::vector<float> inv_scale;
  std::vector<float> zero_point;  // rounded and clamped
};

// Reads and checks the values of float32 tensors.
C10_EXPORT CheckedQParams read_qparams(const at::Tensor& scale, const at::Tensor& zero_point,
                                       int64_t quant_min, int64_t quant_max);

}  // namespace qatx
