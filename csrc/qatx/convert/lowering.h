#pragma once

#include <torch/csrc/jit/ir/ir.h>

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "qatx/convert/constants.h"
#include "qatx/convert/convert.h"
#include "qatx/convert/evaluate.h"
#include "qatx/engine/graph.h"

namespace qatx::torchscript {

// A part of the model that becomes one program. Values of the TorchScript graph are known by their
// number in it.
struct Island {
  engine::Graph graph;
  std::unordered_map<const torch::jit::Value*, int64_t> values;
  std::unordered_map<const torch::jit::Value*, int64_t> masks;  // which lie otherwise in memory
  std::vector<torch::jit::Value*> inputs;                       // made outside
  std::vector<torch::jit::Value*> outputs;                      // float32, used outside

  int64_t add_input(torch::jit::Value* value);  // returns its number
};

// Turns a TorchScript graph (inlined, parameters as constants) into islands of integer nodes,
// operator by operator (convert/rules/). A node belongs to the island whose number is its level:
// how often the data crossed from integers to float and back before it. So no path leads out of an
// island and back into it, and islands can run one after another.
class Lowering {
 public:
  Lowering(const torch::jit::Graph& graph, Constants& constants, TensorTypes types);

  const std::vector<Island>& islands() const { return islands_; }
  std::vector<NodeReport> take_report() { return std::move(report_); }
  // The island of a lowered node, or nullopt.
  std::optional<size_t> island_of(const torch::jit::Node* node) const;
  // Where a node that stays float runs: before the island of this number.
  size_t level_of(const torch::jit::Node* node) const { return node_levels_.at(node); }

  // Of `island`: makes `value` one of its outputs.
  void add_output(size_t island, torch::jit::Value* value);
  // Fuses and cleans what has been lowered. Call once, after all outputs are added.
  void finish();

  // --- For the rules. Each throws nothing and changes nothing when it returns an empty result. ---

  std::optional<c10::IValue> constant(const torch::jit::Value* value) {
    return constants_.get(value);
  }
  // Numbers of a constant int, bool or list of ints; nullopt where it is none of them.
  std::optional<std::vector<int64_t>> ints(const torch::jit::Value* value);
  // Sizes of a tensor for the example inputs; nullptr where they are not known.
  const std::vector<int64_t>* sizes(const torch::jit::Value* value) const;
  // Whether a tensor has this dtype for the example inputs.
  bool has_dtype(const torch::jit::Value* value, at::ScalarType dtype) const;
  // Quantization parameters of a value that consists of codes.
  std::optional<kernels::QParams> codes(const torch::jit::Value* value) const;
  // Number of a float32 value that the current island makes and that only the current node uses.
  std::optional<int64_t> own_float(const torch::jit::Value* value) const;

  // Number in the current island of a value for which codes() holds; brings it in where another
  // island made it.
  int64_t use_codes(torch::jit::Value* value);
  // Number in the current island of an int64 tensor that no island makes.
  int64_t use_indices(torch::jit::Value* value);
  // Number in the current island of a float32 or bool tensor that is the mask of scores.
  int64_t use_mask(torch::jit::Value* value);
  // Whether the current island makes a value.
  bool makes(const torch::jit::Value* value) const;
  // Number in the current island of any other value.
  int64_t use_float(torch::jit::Value* value);
  // Adds a node to the current island; `output` is what the current TorchScript node makes.
  void add_node(engine::Node node, torch::jit::Value* output,
                std::optional<kernels::QParams> qparams);
  // `output` is `input` under another name.
  void alias(torch::jit::Value* output, torch::jit::Value* input);
  void set_weight_bytes(int64_t bytes) { weight_bytes_ = bytes; }
  engine::Graph& graph() { return islands_[level_].graph; }
  const engine::Graph& graph() const { return islands_[level_].graph; }

  // Where sizes come from, as far as they have been looked for: dimensions of tensors.
  std::map<std::pair<const torch::jit::Value*, int64_t>,
           std::pair<const torch::jit::Value*, int64_t>>
      size_origins;

 private:
  void lower(torch::jit::Node* node);
  bool is_constant(const torch::jit::Node* node);
  void add_report(torch::jit::Node* node, const std::string* reason);

  int64_t count_macs(const torch::jit::Node* node);

  Constants& constants_;
  const TensorTypes types_;
  std::vector<Island> islands_;
  std::vector<NodeReport> report_;
  std::unordered_map<const torch::jit::Value*, size_t> value_levels_;
  std::unordered_map<const torch::jit::Node*, size_t> node_levels_;
  std::unordered_map<const torch::jit::Node*, size_t> lowered_;
  std::unordered_map<const torch::jit::Value*, kernels::QParams> codes_;
  size_t level_ = 0;  // of the current node
  int64_t weight_bytes_ = 0;
};

}  // namespace qatx::torchscript
