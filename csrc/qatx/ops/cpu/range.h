#pragma once

#include <ATen/core/Tensor.h>

#include "qatx/core/checks.h"

namespace qatx {

// The range of the finite elements of x that share parameters: `min` and `max`, which check_qparam
// allows. +Inf and -Inf where there is none.
void find_range(const at::Tensor& x, const Granularity& granularity, const at::Tensor& min,
                const at::Tensor& max);

// An end of a range for choose_qparams: 0 where nothing finite was seen.
at::Tensor usable_end(const at::Tensor& end);

}  // namespace qatx
