#pragma once

#include <ATen/core/Tensor.h>

#include "qatx/convert/lowering.h"

namespace qatx::torchscript {

// What the codes 0..255 stand for, float32.
at::Tensor values_of_codes(const kernels::QParams& qparams);

// Whether a value that only the current node uses is a function of codes: a function of it is one,
// too.
bool is_table(const Lowering& lowering, const torch::jit::Value* value);

}  // namespace qatx::torchscript
