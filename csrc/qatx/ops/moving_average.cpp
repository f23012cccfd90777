#include "qatx/ops/moving_average.h"

#include <torch/library.h>

#include "qatx/ops/operator.h"

namespace qatx {

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor> moving_average_fake_quantize(
    const at::Tensor& x, const at::Tensor& running_min, const at::Tensor& running_max,
    double averaging_constant, int64_t quant_min, int64_t quant_max, bool symmetric,
    std::optional<int64_t> axis) {
  static const auto op =
      find_operator<decltype(moving_average_fake_quantize)>("qatx::moving_average_fake_quantize");
  return op.call(x, running_min, running_max, averaging_constant, quant_min, quant_max, symmetric,
                 axis);
}

TORCH_LIBRARY_FRAGMENT(qatx, m) {
  m.def(
      "moving_average_fake_quantize(Tensor x, Tensor running_min, Tensor running_max, "
      "float averaging_constant, int quant_min, int quant_max, bool symmetric, int? axis=None) -> "
      "(Tensor y, Tensor running_min, Tensor running_max, Tensor scale, Tensor zero_point)");
}

}  // namespace qatx
