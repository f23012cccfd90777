#include "qatx/core/qparams.h"

#include <ATen/ops/empty_like.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <cmath>

#include "qatx/core/rounding.h"

namespace qatx {
namespace {

void check_range_tensor(const at::Tensor& t, const char* name) {
  TORCH_CHECK_VALUE(t.defined() && t.scalar_type() == at::kFloat, "choose_qparams: ", name,
                    " must be a float32 tensor, got ",
                    t.defined() ? c10::toString(t.scalar_type()) : "none");
  TORCH_CHECK_VALUE(t.device().is_cpu(), "choose_qparams: ", name, " must be on the CPU, got ",
                    t.device());
}

// The scale in float64 first: max - min of two floats may not fit a float.
float valid_scale(double scale) {
  if (scale == 0.0) return 1.0f;
  return static_cast<float>(
      std::clamp(scale, static_cast<double>(kMinScale), static_cast<double>(kMaxScale)));
}

}  // namespace

std::pair<at::Tensor, at::Tensor> choose_qparams(const at::Tensor& min, const at::Tensor& max,
                                                 const QuantSpec& spec) {
  check_range_tensor(min, "min");
  check_range_tensor(max, "max");
  TORCH_CHECK_VALUE(min.sizes() == max.sizes(),
                    "choose_qparams: min and max must have one shape, got ", min.sizes(), " and ",
                    max.sizes());
  const at::Tensor lo_tensor = min.contiguous();
  const at::Tensor hi_tensor = max.contiguous();
  const float* lo = lo_tensor.const_data_ptr<float>();
  const float* hi = hi_tensor.const_data_ptr<float>();
  for (int64_t i = 0; i < min.numel(); ++i) {
    TORCH_CHECK_VALUE(std::isfinite(lo[i]) && std::isfinite(hi[i]) && lo[i] <= hi[i],
                      "choose_qparams: range ", i, " must be finite with min <= max, got [", lo[i],
                      ", ", hi[i], "]");
  }
  at::Tensor scale = at::empty_like(lo_tensor);
  at::Tensor zero_point = at::empty_like(lo_tensor);
  float* s = scale.mutable_data_ptr<float>();
  float* z = zero_point.mutable_data_ptr<float>();
  const auto quant_min = static_cast<double>(spec.quant_min());
  const auto quant_max = static_cast<double>(spec.quant_max());
  const double middle = spec.is_signed() ? 0.0 : (quant_max + 1) / 2;
  for (int64_t i = 0; i < min.numel(); ++i) {
    const double low = std::min(static_cast<double>(lo[i]), 0.0);
    const double high = std::max(static_cast<double>(hi[i]), 0.0);
    if (spec.symmetric()) {
      s[i] = valid_scale(std::max(-low, high) / (quant_max - middle));
      z[i] = static_cast<float>(middle);
    } else {
      s[i] = valid_scale((high - low) / (quant_max - quant_min));
      z[i] = static_cast<float>(std::clamp(
          std::nearbyint(quant_min - low / static_cast<double>(s[i])), quant_min, quant_max));
    }
  }
  return {scale, zero_point};
}

std::optional<int64_t> check_fake_quantize(const at::Tensor& x, const at::Tensor& scale,
                                           const at::Tensor& zero_point, int64_t quant_min,
                                           int64_t quant_max, std::optional<int64_t> axis) {
  const bool fits_signed = quant_min >= -128 && quant_max <= 127;
  const bool fits_unsigned = quant_min >= 0 && quant_max <= 255;
  TORCH_CHECK_VALUE(quant_min < quant_max && (fits_signed || fits_unsigned),
                    "quant_min < quant_max must lie within -128..127 or 0..255, got quant_min=",
                    quant_min, " and quant_max=", quant_max);
  TORCH_CHECK_TYPE(x.scalar_type() == at::kFloat, "x must be float32, got ",
                   c10::toString(x.scalar_type()));
  std::optional<int64_t> wrapped;
  if (axis) {
    TORCH_CHECK_VALUE(*axis >= -x.dim() && *axis < x.dim(), "axis must be one of the ", x.dim(),
                      " dimensions of x, got ", *axis);
    wrapped = *axis < 0 ? *axis + x.dim() : *axis;
  }
  const auto check = [&](const at::Tensor& t, const char* name) {
    TORCH_CHECK_TYPE(t.scalar_type() == at::kFloat, name, " must be float32, got ",
                     c10::toString(t.scalar_type()));
    TORCH_CHECK_VALUE(t.device() == x.device(), name, " must be on the device of x, ", x.device(),
                      ", got ", t.device());
    if (wrapped) {
      TORCH_CHECK_VALUE(t.dim() == 1 && t.sym_size(0) == x.sym_size(*wrapped), name,
                        " must have shape [", x.sym_size(*wrapped),
                        "], one element for each index of axis ", *axis, ", got ", t.sym_sizes());
    } else {
      TORCH_CHECK_VALUE(t.dim() <= 1 && t.sym_numel() == 1, name,
                        " must have one element where axis is None (per tensor), got shape ",
                        t.sym_sizes());
    }
  };
  check(scale, "scale");
  check(zero_point, "zero_point");
  return wrapped;
}

void check_fake_quantize_grad(const at::Tensor& grad, const at::Tensor& x) {
  TORCH_CHECK_TYPE(grad.scalar_type() == at::kFloat, "grad must be float32, got ",
                   c10::toString(grad.scalar_type()));
  TORCH_CHECK_VALUE(grad.sym_sizes() == x.sym_sizes(), "grad must have the shape of x, ",
                    x.sym_sizes(), ", got ", grad.sym_sizes());
}

CheckedQParams read_qparams(const at::Tensor& scale, const at::Tensor& zero_point,
                            int64_t quant_min, int64_t quant_max) {
  const at::Tensor scales = scale.contiguous();
  const at::Tensor zero_points = zero_point.contiguous();
  const float* s = scales.const_data_ptr<float>();
  const float* z = zero_points.const_data_ptr<float>();
  const auto n = static_cast<size_t>(scale.numel());
  CheckedQParams checked{{s, s + n}, std::vector<float>(n), std::vector<float>(n)};
  for (size_t i = 0; i < n; ++i) {
    TORCH_CHECK_VALUE(is_valid_scale(s[i]), "scale[", i,
                      "] must be positive, finite and at least 2^-126 (at most 2^126), got ", s[i]);
    TORCH_CHECK_VALUE(!std::isnan(z[i]), "zero_point[", i, "] must be a number, got NaN");
    checked.inv_scale[i] = 1.0f / s[i];
    checked.zero_point[i] =
        round_zero_point(z[i], static_cast<float>(quant_min), static_cast<float>(quant_max));
  }
  return checked;
}

}  // namespace qatx
