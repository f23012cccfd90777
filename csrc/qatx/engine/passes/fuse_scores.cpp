#include <algorithm>

#include "qatx/engine/passes/passes.h"

namespace qatx::engine {
namespace {

// Index of the "affine" whose result only `consumer` uses, and which it can do itself, or -1.
int64_t fusable_affine(const Graph& graph, const Node& consumer) {
  if (consumer.op != "affine" && consumer.op != "softmax") return -1;
  if (consumer.floats.contains("scale")) return -1;
  const int64_t value = consumer.inputs[0];
  int64_t uses = std::count(graph.outputs.begin(), graph.outputs.end(), value);
  int64_t found = -1;
  for (size_t n = 0; n < graph.nodes.size(); ++n) {
    const Node& node = graph.nodes[n];
    uses += std::count(node.inputs.begin(), node.inputs.end(), value);
    if (node.output == value && node.op == "affine") found = static_cast<int64_t>(n);
  }
  if (found < 0 || uses != 1) return -1;
  const Node& affine = graph.nodes[static_cast<size_t>(found)];
  const bool two_masks = affine.inputs.size() == 2 && consumer.inputs.size() == 2;
  return two_masks || affine.floats.contains("clamp") ? -1 : found;
}

}  // namespace

void fuse_scores(Graph& graph) {
  for (size_t n = 0; n < graph.nodes.size();) {
    const int64_t found = fusable_affine(graph, graph.nodes[n]);
    if (found < 0) {
      ++n;
      continue;
    }
    Node& node = graph.nodes[n];
    Node& affine = graph.nodes[static_cast<size_t>(found)];
    node.inputs[0] = affine.inputs[0];
    if (affine.inputs.size() == 2) node.inputs.push_back(affine.inputs[1]);
    node.floats.merge(affine.floats);
    node.ints.merge(affine.ints);
    graph.nodes.erase(graph.nodes.begin() + found);
    --n;  // where the node stands now; another one may be before it
  }
}

}  // namespace qatx::engine
