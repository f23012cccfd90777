#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/ivalue.h>

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "qatx/kernels/epilogue.h"

namespace qatx::engine {

// A value is a float tensor, or unsigned 8-bit codes with quantization parameters; an input may
// also be a tensor of indices (int64) or a mask (bool). Sizes are known only when a program runs.
// Four-dimensional values are N, C, H, W in name and N, H, W, C in memory, five-dimensional ones N,
// C, D, H, W and N, D, H, W, C; all others are row-major.
struct Value {
  std::optional<kernels::QParams> qparams;  // nullopt: no codes
  std::string name{};                 // of the fake quantizer in the model; "" where none made it
  at::ScalarType dtype = at::kFloat;  // of what is no codes

  bool quantized() const { return qparams.has_value(); }
  // Of an element in memory.
  int64_t element_bytes() const {
    return quantized() ? 1 : static_cast<int64_t>(c10::elementSize(dtype));
  }
};

// One operation. Attributes are kept by name, so that an operator is added without a new file
// format; every operator reads and checks its own (engine/operators/).
struct Node {
  std::string op{};
  std::string name{};             // where it was in the model; for errors and reports
  std::vector<int64_t> inputs{};  // indices into Graph::values
  int64_t output = -1;
  std::map<std::string, std::vector<int64_t>> ints{};
  std::map<std::string, std::vector<double>> floats{};
  std::map<std::string, at::Tensor> tensors{};
};

// Nodes stand in an order in which they can run.
struct Graph {
  std::vector<Value> values;
  std::vector<int64_t> inputs;
  std::vector<int64_t> outputs;
  std::vector<Node> nodes;

  int64_t add_value(std::optional<kernels::QParams> qparams, std::string name = "");
};

// The node that makes a value; nullptr for an input.
const Node* producer(const Graph& graph, int64_t value);
// How many nodes and outputs read a value; a node that reads it twice counts twice.
int64_t count_uses(const Graph& graph, int64_t value);

// Whether the second input of a node is a mask.
bool takes_mask(const Node& node);

// Whether codes less their zero point fit 8 signed bits, so that they can take the place of a
// weight.
bool fits_weight(const kernels::QParams& qparams);

// Codes lie in 0..255 and hold the zero point; the scale is valid. Throws c10::Error.
void check_qparams(const kernels::QParams& qparams);
kernels::QParams make_qparams(double scale, int64_t zero_point, int64_t quant_min,
                              int64_t quant_max);

// Throws c10::Error unless every index is in range and every value is made exactly once, before it
// is used.
void check_graph(const Graph& graph);

// What is pickled. Weights are logical (not in the order of an instruction set), so a file runs on
// any machine. An integer tensor of few different values, such as weights of 4 or 2 bits, is kept
// under its key as indices of 4 or 2 bits (engine/codebook.h). Among the ints then stand
// "<key>.codebook" and "<key>.shape": 1 for int8 or 0 for uint8, and the sizes.
// The first number: 0 for float32, 1 for codes, 2 for indices, 3 for a mask.
using ValueState = std::tuple<int64_t, double, int64_t, int64_t, int64_t, std::string>;
using NodeState = std::tuple<std::string, std::string, std::vector<int64_t>, int64_t,
                             std::vector<std::tuple<std::string, std::vector<int64_t>>>,
                             std::vector<std::tuple<std::string, std::vector<double>>>,
                             std::vector<std::tuple<std::string, at::Tensor>>>;
using GraphState = std::tuple<int64_t, std::vector<ValueState>, std::vector<int64_t>,
                              std::vector<int64_t>, std::vector<NodeState>>;

inline constexpr int64_t kFormatVersion = 3;

GraphState to_state(const Graph& graph);
// Throws c10::Error where the version is unknown or check_graph fails.
Graph from_state(const GraphState& state);

}  // namespace qatx::engine
