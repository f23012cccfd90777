#include "qatx/ops/moving_average.h"

#include <ATen/core/LegacyTypeDispatch.h>
#include <torch/library.h>

#include "qatx/ops/autograd/node.h"
#include "qatx/ops/fake_quantize.h"

namespace qatx {
namespace {

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor> forward_autograd(
    const at::Tensor& x, const at::Tensor& running_min, const at::Tensor& running_max,
    double averaging_constant, int64_t quant_min, int64_t quant_max, bool symmetric,
    std::optional<int64_t> axis) {
  const auto result = [&] {
    const at::AutoDispatchBelowADInplaceOrView guard;
    return moving_average_fake_quantize(x, running_min, running_max, averaging_constant, quant_min,
                                        quant_max, symmetric, axis);
  }();
  if (requires_gradient("moving_average_fake_quantize", x)) {
    record_backward("qatx::MovingAverageFakeQuantizeBackward", std::get<0>(result), {x},
                    {x, std::get<3>(result), std::get<4>(result)},
                    [=](const variable_list& saved, const at::Tensor& grad) -> variable_list {
                      return {std::get<0>(fake_quantize_backward(grad, saved[0], saved[1], saved[2],
                                                                 quant_min, quant_max, axis))};
                    });
  }
  return result;
}

}  // namespace

TORCH_LIBRARY_IMPL(qatx, Autograd, m) { m.impl("moving_average_fake_quantize", forward_autograd); }

}  // namespace qatx
