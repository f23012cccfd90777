#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/full.h>

#include <memory>
#include <utility>
#include <vector>

#include "../tensor_testing.h"
#include "qatx/engine/graph.h"
#include "qatx/engine/moves.h"
#include "qatx/engine/placement.h"

// Builds graphs by hand.

namespace qatx::engine {

using kernels::QParams;

inline int64_t add_input(Graph& graph) {
  graph.inputs.push_back(graph.add_value(std::nullopt));
  return graph.inputs.back();
}

// Adds the node with a new value as its output, which it returns.
inline int64_t add_node(Graph& graph, Node node, std::optional<QParams> qparams = std::nullopt) {
  node.output = graph.add_value(qparams);
  graph.nodes.push_back(std::move(node));
  return graph.nodes.back().output;
}

inline int64_t quantize(Graph& graph, int64_t value, const QParams& qparams) {
  return add_node(graph, {.op = "quantize", .inputs = {value}}, qparams);
}

inline int64_t dequantize(Graph& graph, int64_t value) {
  return add_node(graph, {.op = "dequantize", .inputs = {value}});
}

// Codes 0..255 of a scale and zero point that suit values in -1..1.
inline QParams unit_qparams() { return make_qparams(1.0 / 128, 128, 0, 255); }

inline at::Tensor full(at::IntArrayRef sizes, double value, at::ScalarType dtype = at::kFloat) {
  return at::full(sizes, value, dtype);
}

// A 3 x 3 convolution that keeps sizes, of 4 channels, without inputs.
inline Node conv2d_node() {
  return {.op = "conv2d",
          .name = "conv",
          .ints = {{"stride", {1, 1}},
                   {"dilation", {1, 1}},
                   {"padding", {1, 1, 1, 1}},
                   {"groups", {1}}},
          .tensors = {{"weight", full({4, 4, 3, 3}, 1, at::kChar)},
                      {"weight_scale", full({4}, 0.5)},
                      {"bias", full({4}, 0.25)}}};
}

// Doubles height and width, of 4 channels.
inline Node conv_transpose2d_node() {
  return {.op = "conv_transpose2d",
          .name = "up",
          .ints = {{"stride", {2, 2}},
                   {"dilation", {1, 1}},
                   {"padding", {0, 0}},
                   {"output_padding", {0, 0}}},
          .tensors = {{"weight", full({4, 4, 2, 2}, 1, at::kChar)},
                      {"weight_scale", full({4}, 0.5)},
                      {"bias", full({4}, 0.25)}}};
}

// 6 elements in, 3 out.
inline Node linear_node() {
  return {.op = "linear",
          .name = "fc",
          .tensors = {{"weight", full({3, 6}, 1, at::kChar)},
                      {"weight_scale", full({3}, 0.5)},
                      {"bias", full({3}, 0.25)}}};
}

inline Node table_node() {
  return {.op = "table", .name = "sigmoid", .tensors = {{"values", full({256}, 0.25)}}};
}

// One step to these sizes.
inline Node reshape_node(const std::vector<int64_t>& sizes) {
  Node node{.op = "move", .name = "flat"};
  add_move(node.ints["steps"], MoveKind::reshape, sizes);
  return node;
}

// Attributes that both window poolings have: 2 x 2, stride 2.
inline Node pool_node(const char* op) {
  return {.op = op,
          .name = "pool",
          .ints = {{"kernel", {2, 2}},
                   {"stride", {2, 2}},
                   {"dilation", {1, 1}},
                   {"padding", {0, 0, 0, 0}},
                   {"ceil_mode", {0}}}};
}

// One node between quantize and, where it makes codes, dequantize.
inline Graph single_node_graph(Node node, std::optional<QParams> output = std::nullopt,
                               size_t input_count = 1) {
  Graph graph;
  for (size_t i = 0; i < input_count; ++i) {
    node.inputs.push_back(quantize(graph, add_input(graph), unit_qparams()));
  }
  int64_t value = add_node(graph, std::move(node), output);
  if (output) value = dequantize(graph, value);
  graph.outputs = {value};
  return graph;
}

// What a plan of a graph is made from.
struct Operators {
  Operators(const Graph& graph, const std::vector<Shape>& inputs) : shapes(graph.values.size()) {
    for (size_t i = 0; i < inputs.size(); ++i) {
      shapes[static_cast<size_t>(graph.inputs[i])] = inputs[i];
    }
    for (const Node& node : graph.nodes) {
      all.push_back(make_operator(graph, node));
      shapes[static_cast<size_t>(node.output)] =
          all.back()->output_shape(input_shapes(node, shapes));
    }
  }

  std::vector<std::unique_ptr<Operator>> all;  // by node
  std::vector<Shape> shapes;                   // by value
};

}  // namespace qatx::engine
