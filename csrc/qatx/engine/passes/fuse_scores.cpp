#include "qatx/engine/passes/passes.h"

namespace qatx::engine {
namespace {

// Index of the "affine" whose result only `consumer` uses, and which it can do itself, or -1.
int64_t fusable_affine(const Graph& graph, const Node& consumer) {
  if (consumer.op != "affine" && consumer.op != "softmax") return -1;
  if (consumer.floats.contains("scale")) return -1;
  const Node* node = producer(graph, consumer.inputs[0]);
  if (!node || node->op != "affine" || count_uses(graph, node->output) != 1) return -1;
  const bool two_masks = node->inputs.size() == 2 && consumer.inputs.size() == 2;
  return two_masks || node->floats.contains("clamp") ? -1 : node - graph.nodes.data();
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
