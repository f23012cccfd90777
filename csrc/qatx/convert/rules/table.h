#pragma once

#include <ATen/core/Tensor.h>

#include "qatx/convert/lowering.h"

namespace qatx::torchscript {

// What the codes 0..255 stand for, float32.
at::Tensor values_of_codes(const kernels::QParams& qparams);

}  // namespace qatx::torchscript
