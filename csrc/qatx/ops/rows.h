#pragma once

#include <ATen/core/Tensor.h>

namespace qatx {

// x as a matrix of its rows, which lie along its last dimension; one without dimensions is a row.
inline at::Tensor as_rows(const at::Tensor& x) {
  return x.dim() < 2 ? x.reshape_symint({1, x.sym_numel()}) : x.flatten(0, -2);
}

// The sizes of what has one element for each row.
inline c10::SymIntArrayRef sizes_of_rows(const at::Tensor& x) {
  return x.sym_sizes().slice(0, x.dim() < 2 ? 0 : static_cast<size_t>(x.dim()) - 1);
}

}  // namespace qatx
