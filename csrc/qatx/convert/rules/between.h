#pragma once

#include <cstdint>
#include <vector>

#include "qatx/convert/lowering.h"
#include "qatx/engine/moves.h"

namespace qatx::torchscript {

// The node reads its input, which is `input`, through a move, and its result goes through another
// one before it is `output`: lines as images of height 1, say.
void add_between(Lowering& lowering, engine::Node node, torch::jit::Value* input,
                 torch::jit::Value* output, engine::MoveKind kind,
                 const std::vector<int64_t>& before, const std::vector<int64_t>& behind);

// For a node that works along what lies last in memory, of a value whose last dimension is meant:
// where the value counts as images, that becomes their channels and goes back behind the node.
void add_as_pixels(Lowering& lowering, engine::Node node, torch::jit::Value* input,
                   torch::jit::Value* output, size_t dimensions);

}  // namespace qatx::torchscript
