#pragma once

#include <torch/csrc/jit/ir/ir.h>

#include <optional>
#include <unordered_map>
#include <vector>

namespace qatx::torchscript {

// Runs one node without blocks. Empty where it has no operator, or one with side effects or random
// results.
std::optional<std::vector<c10::IValue>> evaluate(const torch::jit::Node* node,
                                                 std::vector<c10::IValue> inputs);

using Sizes = std::unordered_map<const torch::jit::Value*, std::vector<int64_t>>;

// Runs a graph, node by node, and returns the sizes of the tensors that it meets. `known` holds its
// inputs. What depends on a node that cannot be evaluated is left out. (The types that tracing
// records would do, but a saved module loses them.)
Sizes record_sizes(const torch::jit::Graph& graph,
                   std::unordered_map<const torch::jit::Value*, c10::IValue> known);

}  // namespace qatx::torchscript
