#include "qatx/ptq/output_error.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/zeros.h>

#include <algorithm>

namespace qatx::ptq {
namespace {

constexpr int64_t kAtOnce = int64_t{1} << 22;  // elements that are turned into float64

// [n, groups, channels, rows] -> [groups, channels, n * rows], float64.
at::Tensor in_columns(const at::Tensor& t, int64_t begin, int64_t n) {
  return t.narrow(0, begin, n)
      .permute({1, 2, 0, 3})
      .to(at::kDouble)
      .reshape({t.size(1), t.size(2), n * t.size(3)});
}

}  // namespace

OutputError::OutputError(int64_t groups, int64_t outputs, int64_t inputs) {
  TORCH_CHECK_VALUE(groups > 0 && outputs > 0 && inputs > 0,
                    "OutputError: groups, outputs and inputs must be at least 1, got ", groups,
                    ", ", outputs, " and ", inputs);
  gram_ = at::zeros({groups, inputs, inputs}, at::kDouble);
  cross_ = at::zeros({groups, outputs, inputs}, at::kDouble);
  squares_ = at::zeros({groups, outputs}, at::kDouble);
}

void OutputError::add(const at::Tensor& x, const at::Tensor& y) {
  TORCH_CHECK_VALUE(x.dim() == 4 && x.size(1) == cross_.size(0) && x.size(2) == cross_.size(2),
                    "OutputError: x must have the shape [N, ", cross_.size(0), ", ", cross_.size(2),
                    ", rows], got ", x.sizes());
  TORCH_CHECK_VALUE(y.dim() == 4 && y.size(0) == x.size(0) && y.size(1) == cross_.size(0) &&
                        y.size(2) == cross_.size(1) && y.size(3) == x.size(3),
                    "OutputError: y must have the shape [", x.size(0), ", ", cross_.size(0), ", ",
                    cross_.size(1), ", ", x.size(3), "], got ", y.sizes());
  const int64_t sample = x.size(1) * std::max(x.size(2), y.size(2)) * x.size(3);
  const int64_t step = std::max<int64_t>(1, kAtOnce / std::max<int64_t>(1, sample));
  for (int64_t begin = 0; begin < x.size(0); begin += step) {
    const int64_t n = std::min(step, x.size(0) - begin);
    const at::Tensor inputs = in_columns(x, begin, n);
    const at::Tensor outputs = in_columns(y, begin, n);
    gram_.baddbmm_(inputs, inputs.mT());
    cross_.baddbmm_(outputs, inputs.mT());
    squares_ += outputs.square().sum(-1);
  }
  rows_ += x.size(0) * x.size(3);
}

void OutputError::check_weight(const at::Tensor& weight) const {
  TORCH_CHECK_VALUE(weight.sizes() == cross_.sizes(), "OutputError: weight must have the shape ",
                    cross_.sizes(), ", got ", weight.sizes());
}

at::Tensor OutputError::operator()(const at::Tensor& weight) const {
  check_weight(weight);
  const at::Tensor w = weight.to(at::kDouble);
  const at::Tensor error = ((at::bmm(w, gram_) - 2 * cross_) * w).sum(-1) + squares_;
  return error.clamp_min(0.0);  // rounding of the sums
}

}  // namespace qatx::ptq
