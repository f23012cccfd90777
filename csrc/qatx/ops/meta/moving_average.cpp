#include "qatx/ops/moving_average.h"

#include <ATen/ops/empty_like.h>
#include <torch/library.h>

#include "qatx/core/checks.h"

namespace qatx {
namespace {

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor> forward_meta(
    const at::Tensor& x, const at::Tensor& running_min, const at::Tensor& running_max,
    double averaging_constant, int64_t quant_min, int64_t quant_max, bool /*symmetric*/,
    std::optional<int64_t> axis) {
  check_moving_average(x, running_min, running_max, averaging_constant, quant_min, quant_max, axis);
  return {at::empty_like(x), at::empty_like(running_min), at::empty_like(running_max),
          at::empty_like(running_min), at::empty_like(running_min)};
}

}  // namespace

TORCH_LIBRARY_IMPL(qatx, Meta, m) { m.impl("moving_average_fake_quantize", forward_meta); }

}  // namespace qatx
