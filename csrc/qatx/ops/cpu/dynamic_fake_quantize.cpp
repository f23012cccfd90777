#include "qatx/ops/dynamic_fake_quantize.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <torch/library.h>

#include "qatx/core/qparams.h"
#include "qatx/ops/cpu/layout.h"
#include "qatx/ops/cpu/range.h"
#include "qatx/ops/fake_quantize.h"
#include "qatx/ops/rows.h"

namespace qatx {
namespace {

std::tuple<at::Tensor, at::Tensor> forward_cpu(const at::Tensor& x, int64_t quant_max) {
  check_dynamic_fake_quantize(x, quant_max);
  constexpr int64_t kAxis = 0;
  const at::Tensor rows = as_rows(x);
  const at::Tensor min =
      at::empty(rows.sizes().slice(0, 1), x.options().dtype(qparams_dtype(x.scalar_type())));
  const at::Tensor max = at::empty_like(min);
  find_range(rows, {kAxis, std::nullopt}, min, max);
  const auto [scale, zero_point] =
      choose_qparams(usable_end(min), usable_end(max), -quant_max, quant_max, /*symmetric=*/true);
  const at::Tensor y = fake_quantize(rows, scale, zero_point, -quant_max, quant_max, kAxis);
  return {with_strides_of(y.view(x.sizes()), x), scale.view_symint(sizes_of_rows(x))};
}

}  // namespace

TORCH_LIBRARY_IMPL(qatx, CPU, m) { m.impl("dynamic_fake_quantize", forward_cpu); }

}  // namespace qatx
