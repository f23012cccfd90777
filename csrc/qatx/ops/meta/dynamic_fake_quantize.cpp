#include "qatx/ops/dynamic_fake_quantize.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <torch/library.h>

#include "qatx/core/checks.h"
#include "qatx/ops/rows.h"

namespace qatx {
namespace {

std::tuple<at::Tensor, at::Tensor> forward_meta(const at::Tensor& x, int64_t quant_max) {
  check_dynamic_fake_quantize(x, quant_max);
  return {at::empty_like(x),
          at::empty_symint(sizes_of_rows(x), x.options().dtype(qparams_dtype(x.scalar_type())))};
}

}  // namespace

TORCH_LIBRARY_IMPL(qatx, Meta, m) { m.impl("dynamic_fake_quantize", forward_meta); }

}  // namespace qatx
