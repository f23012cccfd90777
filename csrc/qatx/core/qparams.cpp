#include "qatx/core/qparams.h"

#include <ATen/ops/empty_like.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <cmath>
#include <tuple>

#include "qatx/core/checks.h"
#include "qatx/core/rounding.h"

namespace qatx {
namespace {

void check_range_tensor(const at::Tensor& t, const char* name) {
  TORCH_CHECK_TYPE(t.defined() && (t.scalar_type() == at::kFloat || t.scalar_type() == at::kDouble),
                   "choose_qparams: ", name, " must be a float32 or float64 tensor, got ",
                   t.defined() ? c10::toString(t.scalar_type()) : "none");
  TORCH_CHECK_VALUE(t.device().is_cpu(), "choose_qparams: ", name, " must be on the CPU, got ",
                    t.device());
}

// The scale in float64 first: max - min of two floats may not fit a float.
double valid_scale(double scale) {
  if (scale == 0.0) return 1.0;
  return std::clamp(scale, static_cast<double>(kMinScale), static_cast<double>(kMaxScale));
}

// (scale, zero_point)
template <class Real>
std::pair<Real, Real> choose_one(double low, double high, int64_t quant_min, int64_t quant_max,
                                 bool symmetric) {
  low = std::min(low, 0.0);
  high = std::max(high, 0.0);
  const auto first = static_cast<double>(quant_min);
  const auto last = static_cast<double>(quant_max);
  if (symmetric) {
    const double middle = quant_min < 0 ? 0.0 : (last + 1) / 2;
    return {static_cast<Real>(valid_scale(std::max(-low, high) / (last - middle))),
            static_cast<Real>(middle)};
  }
  const auto scale = static_cast<Real>(valid_scale((high - low) / (last - first)));
  return {scale, static_cast<Real>(std::clamp(
                     std::nearbyint(first - low / static_cast<double>(scale)), first, last))};
}

template <class Real>
void choose(const at::Tensor& min, const at::Tensor& max, int64_t quant_min, int64_t quant_max,
            bool symmetric, const at::Tensor& scale, const at::Tensor& zero_point) {
  const Real* lo = min.const_data_ptr<Real>();
  const Real* hi = max.const_data_ptr<Real>();
  Real* s = scale.mutable_data_ptr<Real>();
  Real* z = zero_point.mutable_data_ptr<Real>();
  for (int64_t i = 0; i < min.numel(); ++i) {
    TORCH_CHECK_VALUE(std::isfinite(lo[i]) && std::isfinite(hi[i]) && lo[i] <= hi[i],
                      "choose_qparams: range ", i, " must be finite with min <= max, got [", lo[i],
                      ", ", hi[i], "]");
  }
  for (int64_t i = 0; i < min.numel(); ++i) {
    std::tie(s[i], z[i]) = choose_one<Real>(static_cast<double>(lo[i]), static_cast<double>(hi[i]),
                                            quant_min, quant_max, symmetric);
  }
}

}  // namespace

std::pair<at::Tensor, at::Tensor> choose_qparams(const at::Tensor& min, const at::Tensor& max,
                                                 int64_t quant_min, int64_t quant_max,
                                                 bool symmetric) {
  check_quant_range(quant_min, quant_max);
  check_range_tensor(min, "min");
  check_range_tensor(max, "max");
  TORCH_CHECK_VALUE(min.sizes() == max.sizes() && min.scalar_type() == max.scalar_type(),
                    "choose_qparams: min and max must have one shape and dtype, got ", min.sizes(),
                    " ", c10::toString(min.scalar_type()), " and ", max.sizes(), " ",
                    c10::toString(max.scalar_type()));
  const at::Tensor lo = min.contiguous();
  const at::Tensor hi = max.contiguous();
  at::Tensor scale = at::empty_like(lo);
  at::Tensor zero_point = at::empty_like(lo);
  if (min.scalar_type() == at::kFloat) {
    choose<float>(lo, hi, quant_min, quant_max, symmetric, scale, zero_point);
  } else {
    choose<double>(lo, hi, quant_min, quant_max, symmetric, scale, zero_point);
  }
  return {scale, zero_point};
}

std::pair<float, float> choose_qparams(double low, double high, int64_t quant_min,
                                       int64_t quant_max, bool symmetric) {
  return choose_one<float>(low, high, quant_min, quant_max, symmetric);
}

std::pair<at::Tensor, at::Tensor> choose_qparams(const at::Tensor& min, const at::Tensor& max,
                                                 const QuantSpec& spec) {
  return choose_qparams(min, max, spec.quant_min(), spec.quant_max(), spec.symmetric());
}

void check_qparams_values(const at::Tensor& scale, const at::Tensor& zero_point) {
  const at::Tensor scales = scale.to(at::kDouble).contiguous();
  const at::Tensor zero_points = zero_point.to(at::kDouble).contiguous();
  const double* s = scales.const_data_ptr<double>();
  const double* z = zero_points.const_data_ptr<double>();
  for (int64_t i = 0; i < scale.numel(); ++i) {
    TORCH_CHECK_VALUE(s[i] >= kMinScale && s[i] <= kMaxScale, "scale[", i,
                      "] must be positive, finite and at least 2^-126 (at most 2^126), got ", s[i]);
  }
  for (int64_t i = 0; i < zero_point.numel(); ++i) {
    TORCH_CHECK_VALUE(!std::isnan(z[i]), "zero_point[", i, "] must be a number, got NaN");
  }
}

CheckedQParams read_qparams(const at::Tensor& scale, const at::Tensor& zero_point,
                            int64_t quant_min, int64_t quant_max) {
  check_qparams_values(scale, zero_point);
  const at::Tensor scales = scale.contiguous();
  const at::Tensor zero_points = zero_point.contiguous();
  const float* s = scales.const_data_ptr<float>();
  const float* z = zero_points.const_data_ptr<float>();
  const auto n = static_cast<size_t>(scale.numel());
  CheckedQParams checked{{s, s + n}, std::vector<float>(n), std::vector<float>(n)};
  for (size_t i = 0; i < n; ++i) {
    checked.inv_scale[i] = 1.0f / s[i];
    checked.zero_point[i] =
        round_zero_point(z[i], static_cast<float>(quant_min), static_cast<float>(quant_max));
  }
  return checked;
}

}  // namespace qatx
