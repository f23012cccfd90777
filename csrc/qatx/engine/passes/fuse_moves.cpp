#include <algorithm>

#include "qatx/engine/passes/passes.h"

namespace qatx::engine {
namespace {

// The move whose result only `node` uses, or the end.
std::vector<Node>::iterator move_before(Graph& graph, const Node& node) {
  if (node.op != "move" || node.inputs.size() != 1) return graph.nodes.end();
  const int64_t value = node.inputs[0];
  int64_t uses = std::count(graph.outputs.begin(), graph.outputs.end(), value);
  for (const Node& user : graph.nodes) {
    uses += std::count(user.inputs.begin(), user.inputs.end(), value);
  }
  if (uses != 1) return graph.nodes.end();
  return std::find_if(graph.nodes.begin(), graph.nodes.end(), [&](const Node& other) {
    return other.output == value && other.op == "move";
  });
}

}  // namespace

void fuse_moves(Graph& graph) {
  for (size_t n = 0; n < graph.nodes.size();) {
    const auto before = move_before(graph, graph.nodes[n]);
    if (before == graph.nodes.end()) {
      ++n;
      continue;
    }
    Node& node = graph.nodes[n];
    node.inputs = before->inputs;
    std::vector<int64_t>& steps = node.ints["steps"];
    const std::vector<int64_t>& first = before->ints["steps"];
    steps.insert(steps.begin(), first.begin(), first.end());
    graph.nodes.erase(before);
    --n;  // nodes behind the one that is gone have moved up; this one may follow another move
  }
}

}  // namespace qatx::engine
