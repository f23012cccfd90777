#pragma once

#include <ATen/core/Tensor.h>
#include <c10/macros/Export.h>

#include <cstdint>
#include <optional>

namespace qatx {

// DoReFa's weights (arXiv 1606.06160, equations 5 and 9), with n = 2^bits - 1:
//   r = tanh(weight) / (2 * max|tanh(weight)|) + 1/2,   result = 2 * rint(n * r) / n - 1
// The result is an odd multiple of 1/n in [-1, 1]: no weight is 0.
//
// - weight: float32 or float64; bits: 2 to 8.
// - axis: the maximum of each index of this dimension; nullopt: of all (as in the paper).
//
// The gradient goes straight through the rounding, and through all else as it is. A weight that is
// all zero is divided by 2^-64 instead.
C10_EXPORT at::Tensor dorefa_weight(const at::Tensor& weight, int64_t bits,
                                    std::optional<int64_t> axis = std::nullopt);

}  // namespace qatx
