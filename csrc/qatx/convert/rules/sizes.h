#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "qatx/convert/lowering.h"

namespace qatx::torchscript {

// A number that is the same for every input: a constant, or made of constants and numbers of
// channels (the second size of a tensor of three dimensions or more).
std::optional<int64_t> fixed_number(Lowering& lowering, const torch::jit::Value* value);

// The dimension d for which `value` is x.size(d), or the size of another tensor that is the same
// for every input of the model.
std::optional<int64_t> size_of(Lowering& lowering, const torch::jit::Value* value,
                               const torch::jit::Value* x);

// Lets a node that measures a dimension of a value measure the model's input that this dimension
// comes from, where there is one: what is made of sizes, such as a mask, need not wait for the
// value.
void measure_input(Lowering& lowering, torch::jit::Node* size);

// A constant dimension of `x`, counted from the front.
std::optional<int64_t> dimension(Lowering& lowering, const torch::jit::Value* value,
                                 const torch::jit::Value* x);

// Sizes that are those of the input, for engine::MoveKind::reshape.
std::vector<int64_t> kept_sizes(size_t dimensions);

// Adds a node whose result no TorchScript node makes, and returns its number.
int64_t add_inner(Lowering& lowering, engine::Node node, std::optional<kernels::QParams> qparams);

// Whether the elements of a value can be moved in the program: codes, or float32 values that the
// program makes, nobody else uses, and that are not what the model returns.
bool can_move(Lowering& lowering, const torch::jit::Value* value);

// Adds a node that moves the elements of `input`, for which can_move() holds, and is what `output`
// is made of.
std::string add_moves(Lowering& lowering, torch::jit::Value* input, torch::jit::Value* output,
                      std::vector<int64_t> steps);

}  // namespace qatx::torchscript
