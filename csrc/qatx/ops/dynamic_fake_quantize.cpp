#include "qatx/ops/dynamic_fake_quantize.h"

#include <torch/library.h>

#include "qatx/ops/operator.h"

namespace qatx {

std::tuple<at::Tensor, at::Tensor> dynamic_fake_quantize(const at::Tensor& x, int64_t quant_max) {
  static const auto op =
      find_operator<decltype(dynamic_fake_quantize)>("qatx::dynamic_fake_quantize");
  return op.call(x, quant_max);
}

TORCH_LIBRARY_FRAGMENT(qatx, m) {
  m.def("dynamic_fake_quantize(Tensor x, int quant_max) -> (Tensor y, Tensor scale)");
}

}  // namespace qatx
