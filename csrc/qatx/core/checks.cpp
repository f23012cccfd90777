#include "qatx/core/checks.h"

#include <c10/util/Exception.h>

namespace qatx {

void check_quant_range(int64_t quant_min, int64_t quant_max) {
  const bool fits_signed = quant_min >= -128 && quant_max <= 127;
  const bool fits_unsigned = quant_min >= 0 && quant_max <= 255;
  TORCH_CHECK_VALUE(quant_min < quant_max && (fits_signed || fits_unsigned),
                    "quant_min < quant_max must lie within -128..127 or 0..255, got quant_min=",
                    quant_min, " and quant_max=", quant_max);
}

namespace {

void check_float(at::ScalarType type, const char* name) {
  TORCH_CHECK_TYPE(
      type == at::kFloat || type == at::kBFloat16 || type == at::kHalf || type == at::kDouble, name,
      " must be float32, bfloat16, float16 or float64, got ", c10::toString(type));
}

}  // namespace

void check_float(const at::Tensor& x, const char* name) { check_float(x.scalar_type(), name); }

Granularity check_granularity(const at::Tensor& x, std::optional<int64_t> axis,
                              std::optional<int64_t> group_size) {
  Granularity granularity{std::nullopt, group_size};
  if (axis) {
    TORCH_CHECK_VALUE(*axis >= -x.dim() && *axis < x.dim(), "axis must be one of the ", x.dim(),
                      " dimensions of x, got ", *axis);
    granularity.axis = *axis < 0 ? *axis + x.dim() : *axis;
  }
  TORCH_CHECK_VALUE(!group_size || axis, "group_size needs an axis, got axis=None");
  TORCH_CHECK_VALUE(!group_size || *group_size >= 1, "group_size must be at least 1, got ",
                    *group_size);
  return granularity;
}

at::ScalarType qparams_dtype(at::ScalarType x) { return x == at::kDouble ? x : at::kFloat; }

void check_qparam(const at::Tensor& t, const char* name, const at::Tensor& x,
                  const Granularity& granularity, at::ScalarType dtype) {
  TORCH_CHECK_TYPE(t.scalar_type() == dtype, name, " must be ",
                   dtype == at::kFloat ? "float32" : "float64 where x is", ", got ",
                   c10::toString(t.scalar_type()));
  TORCH_CHECK_VALUE(t.device() == x.device(), name, " must be on the device of x, ", x.device(),
                    ", got ", t.device());
  const auto& [axis, group_size] = granularity;
  if (!axis) {
    TORCH_CHECK_VALUE(t.dim() <= 1 && t.sym_numel() == 1, name,
                      " must have one element where axis is None (per tensor), got shape ",
                      t.sym_sizes());
    return;
  }
  if (!group_size) {
    TORCH_CHECK_VALUE(t.dim() == 1 && t.sym_size(0) == x.sym_size(*axis), name,
                      " must have shape [", x.sym_size(*axis),
                      "], one element for each index of axis ", *axis, ", got ", t.sym_sizes());
    return;
  }
  std::vector<c10::SymInt> sizes = x.sym_sizes().vec();
  auto& groups = sizes[static_cast<size_t>(*axis)];
  groups = (groups + *group_size - 1) / *group_size;
  TORCH_CHECK_VALUE(t.sym_sizes() == sizes, name, " must have shape ", c10::SymIntArrayRef(sizes),
                    ", one element for each group of ", *group_size, " along axis ", *axis,
                    ", got ", t.sym_sizes());
}

Granularity check_fake_quantize(const at::Tensor& x, const at::Tensor& scale,
                                const at::Tensor& zero_point, int64_t quant_min, int64_t quant_max,
                                std::optional<int64_t> axis, std::optional<int64_t> group_size) {
  check_quant_range(quant_min, quant_max);
  check_float(x, "x");
  const Granularity granularity = check_granularity(x, axis, group_size);
  const at::ScalarType dtype = qparams_dtype(x.scalar_type());
  check_qparam(scale, "scale", x, granularity, dtype);
  check_qparam(zero_point, "zero_point", x, granularity, dtype);
  return granularity;
}

Granularity check_dequantize(const at::Tensor& codes, const at::Tensor& scale,
                             const at::Tensor& zero_point, std::optional<int64_t> axis,
                             std::optional<int64_t> group_size, at::ScalarType dtype) {
  TORCH_CHECK_TYPE(codes.scalar_type() == at::kChar || codes.scalar_type() == at::kByte,
                   "codes must be int8 or uint8, got ", c10::toString(codes.scalar_type()));
  check_float(dtype, "dtype");
  const Granularity granularity = check_granularity(codes, axis, group_size);
  check_qparam(scale, "scale", codes, granularity, qparams_dtype(dtype));
  check_qparam(zero_point, "zero_point", codes, granularity, qparams_dtype(dtype));
  return granularity;
}

Granularity check_moving_average(const at::Tensor& x, const at::Tensor& running_min,
                                 const at::Tensor& running_max, double averaging_constant,
                                 int64_t quant_min, int64_t quant_max,
                                 std::optional<int64_t> axis) {
  check_quant_range(quant_min, quant_max);
  check_float(x, "x");
  TORCH_CHECK_VALUE(averaging_constant >= 0.0 && averaging_constant <= 1.0,
                    "averaging_constant must be from 0 to 1, got ", averaging_constant);
  const Granularity granularity = check_granularity(x, axis, std::nullopt);
  const at::ScalarType dtype = qparams_dtype(x.scalar_type());
  check_qparam(running_min, "running_min", x, granularity, dtype);
  check_qparam(running_max, "running_max", x, granularity, dtype);
  return granularity;
}

namespace {

void check_like(const at::Tensor& t, const char* name, const at::Tensor& x, const char* x_name) {
  TORCH_CHECK_TYPE(t.scalar_type() == x.scalar_type(), name, " must have the dtype of ", x_name,
                   ", ", c10::toString(x.scalar_type()), ", got ", c10::toString(t.scalar_type()));
  TORCH_CHECK_VALUE(t.sym_sizes() == x.sym_sizes(), name, " must have the shape of ", x_name, ", ",
                    x.sym_sizes(), ", got ", t.sym_sizes());
  TORCH_CHECK_VALUE(t.device() == x.device(), name, " must be on the device of ", x_name, ", ",
                    x.device(), ", got ", t.device());
}

}  // namespace

void check_dynamic_fake_quantize(const at::Tensor& x, int64_t quant_max) {
  check_float(x, "x");
  TORCH_CHECK_VALUE(quant_max >= 1 && quant_max <= 127, "quant_max must be from 1 to 127, got ",
                    quant_max);
}

void check_scale_parameter(const at::Tensor& t, const char* name) {
  TORCH_CHECK_TYPE(t.scalar_type() == at::kFloat || t.scalar_type() == at::kDouble, name,
                   " must be float32 or float64, got ", c10::toString(t.scalar_type()));
}

void check_grad(const at::Tensor& grad, const at::Tensor& x, const char* x_name) {
  check_like(grad, "grad", x, x_name);
}

void check_out(const at::Tensor& out, const at::Tensor& x) { check_like(out, "out", x, "x"); }

void check_seed(const std::optional<at::Tensor>& seed) {
  if (!seed) return;
  TORCH_CHECK_TYPE(seed->scalar_type() == at::kLong, "seed must be int64, got ",
                   c10::toString(seed->scalar_type()));
  TORCH_CHECK_VALUE(seed->sym_numel() == 1, "seed must have one element, got shape ",
                    seed->sym_sizes());
}

}  // namespace qatx
