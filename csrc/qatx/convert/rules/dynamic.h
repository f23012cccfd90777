#pragma once

#include <string>

#include "qatx/convert/lowering.h"

namespace qatx::torchscript {

// Whether a value's rows were quantized by their own ranges.
bool is_dynamic(const torch::jit::Value* value);

// A linear layer whose input is_dynamic(). Returns an empty string, or the reason why it cannot.
std::string lower_dynamic_linear(Lowering& lowering, torch::jit::Node* node);

}  // namespace qatx::torchscript
