#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "qatx/convert/lowering.h"

namespace qatx::torchscript {

// A constant argument of `count` numbers; one number stands for all.
std::optional<std::vector<int64_t>> numbers(Lowering& lowering, const torch::jit::Value* value,
                                            size_t count);

// Whether a tensor has this number of dimensions for the example inputs.
bool has_dimensions(const Lowering& lowering, const torch::jit::Value* value, size_t dimensions);

}  // namespace qatx::torchscript
