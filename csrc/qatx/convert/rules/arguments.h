#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "qatx/convert/lowering.h"

namespace qatx::torchscript {

// A constant argument of two numbers; one number stands for both.
std::optional<std::vector<int64_t>> pair(Lowering& lowering, const torch::jit::Value* value);

// Whether a tensor has this number of dimensions for the example inputs.
bool has_dimensions(const Lowering& lowering, const torch::jit::Value* value, size_t dimensions);

}  // namespace qatx::torchscript
