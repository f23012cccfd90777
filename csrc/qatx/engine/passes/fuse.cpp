#include <algorithm>
#include <string_view>

#include "qatx/engine/passes/passes.h"

namespace qatx::engine {
namespace {

constexpr std::string_view kWithEpilogue[] = {"add",
                                              "affine",
                                              "avg_pool2d",
                                              "avg_pool3d",
                                              "cat",
                                              "conv2d",
                                              "conv3d",
                                              "conv_transpose2d",
                                              "conv_transpose3d",
                                              "div",
                                              "dynamic_linear",
                                              "embedding",
                                              "layer_norm",
                                              "linear",
                                              "matmul",
                                              "mean",
                                              "mul",
                                              "softmax",
                                              "sub",
                                              "table",
                                              "upsample_bilinear"};

bool has_epilogue(const Node& node) {
  return std::find(std::begin(kWithEpilogue), std::end(kWithEpilogue), node.op) !=
         std::end(kWithEpilogue);
}

bool is_float(const Graph& graph, int64_t value) {
  return !graph.values[static_cast<size_t>(value)].quantized();
}

// Index of the node whose epilogue can do what `consumer` does, or -1.
int64_t fusable_producer(const Graph& graph, const Node& consumer) {
  if (consumer.op != "clamp" && consumer.op != "add" && consumer.op != "quantize") return -1;
  const auto input = std::find_if(consumer.inputs.begin(), consumer.inputs.end(),
                                  [&](int64_t value) { return is_float(graph, value); });
  if (input == consumer.inputs.end()) return -1;
  const Node* node = producer(graph, *input);
  if (!node || !has_epilogue(*node) || count_uses(graph, *input) != 1) return -1;
  return node - graph.nodes.data();
}

Node merge(Node node, const Node& consumer) {
  if (consumer.op == "clamp") {
    const std::vector<double>& limits = consumer.floats.at("clamp");
    const auto [clamp, is_first] = node.floats.try_emplace("clamp", limits);
    if (!is_first) {  // one clamp in place of two
      for (double& limit : clamp->second) limit = std::min(std::max(limit, limits[0]), limits[1]);
    }
  } else if (consumer.op == "add") {
    node.inputs.push_back(consumer.inputs[0] == node.output ? consumer.inputs[1]
                                                            : consumer.inputs[0]);
  }
  node.output = consumer.output;
  return node;
}

}  // namespace

bool can_fuse_clamp(const Graph& graph, int64_t value) {
  const Node* node = producer(graph, value);
  while (node && (node->op == "move" || node->op == "clamp")) {
    node = producer(graph, node->inputs[0]);
  }
  return node && is_float(graph, value) && has_epilogue(*node);
}

bool can_fuse_residual(const Graph& graph, int64_t value) {
  const Node* node = producer(graph, value);
  return node && is_float(graph, value) &&
         (node->op == "conv2d" || node->op == "conv3d" || node->op == "linear");
}

void fuse(Graph& graph) {
  for (size_t n = 0; n < graph.nodes.size();) {
    const int64_t found = fusable_producer(graph, graph.nodes[n]);
    if (found < 0) {
      ++n;
      continue;
    }
    // The fused node stands where the consumer stood: there all its inputs are made.
    const auto p = static_cast<size_t>(found);
    graph.nodes[n] = merge(graph.nodes[p], graph.nodes[n]);
    graph.nodes.erase(graph.nodes.begin() + found);
    n -= p < n ? 1 : 0;
    ++n;
  }
}

}  // namespace qatx::engine
