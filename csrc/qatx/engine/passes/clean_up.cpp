#include <algorithm>

#include "qatx/engine/passes/passes.h"

namespace qatx::engine {

void eliminate_dead_nodes(Graph& graph) {
  std::vector<bool> needed(graph.values.size(), false);
  for (const int64_t output : graph.outputs) needed[static_cast<size_t>(output)] = true;
  for (auto node = graph.nodes.rbegin(); node != graph.nodes.rend(); ++node) {
    if (!needed[static_cast<size_t>(node->output)]) continue;
    for (const int64_t input : node->inputs) needed[static_cast<size_t>(input)] = true;
  }
  std::erase_if(graph.nodes,
                [&](const Node& node) { return !needed[static_cast<size_t>(node.output)]; });
}

void compact_values(Graph& graph) {
  std::vector<int64_t> renumbered(graph.values.size(), -1);
  std::vector<Value> values;
  const auto keep = [&](int64_t value) {
    int64_t& index = renumbered[static_cast<size_t>(value)];
    if (index >= 0) return;
    index = static_cast<int64_t>(values.size());
    values.push_back(graph.values[static_cast<size_t>(value)]);
  };
  std::for_each(graph.inputs.begin(), graph.inputs.end(), keep);
  for (const Node& node : graph.nodes) keep(node.output);
  const auto renumber = [&](std::vector<int64_t>& list) {
    for (int64_t& value : list) value = renumbered[static_cast<size_t>(value)];
  };
  for (Node& node : graph.nodes) {
    renumber(node.inputs);
    node.output = renumbered[static_cast<size_t>(node.output)];
  }
  renumber(graph.inputs);
  renumber(graph.outputs);
  graph.values = std::move(values);
}

}  // namespace qatx::engine
