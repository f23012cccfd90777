#pragma once

#include <torch/csrc/jit/ir/ir.h>

#include <optional>
#include <unordered_map>
#include <vector>

namespace qatx::torchscript {

// Runs one node without blocks. Empty where it has no operator, or one with side effects or, unless
// `random` says that they will do, random results.
std::optional<std::vector<c10::IValue>> evaluate(const torch::jit::Node* node,
                                                 std::vector<c10::IValue> inputs,
                                                 bool random = false);

struct TensorType {
  std::vector<int64_t> sizes;
  at::ScalarType dtype;
};
using TensorTypes = std::unordered_map<const torch::jit::Value*, TensorType>;

// Runs a graph, node by node, and returns the types of the tensors that it meets. `known` holds its
// inputs. What depends on a node that cannot be evaluated is left out. (The types that tracing
// records would do, but a saved module loses them.)
TensorTypes record_types(const torch::jit::Graph& graph,
                         std::unordered_map<const torch::jit::Value*, c10::IValue> known);

}  // namespace qatx::torchscript
