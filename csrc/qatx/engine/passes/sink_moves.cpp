#include <algorithm>

#include "qatx/engine/moves.h"
#include "qatx/engine/passes/passes.h"

namespace qatx::engine {
namespace {

bool is_float(const Graph& graph, int64_t value) {
  return !graph.values[static_cast<size_t>(value)].quantized();
}

// Whether a move changes sizes only.
bool keeps_order(const Node& move) {
  const std::vector<int64_t>& steps = move.ints.at("steps");
  for (size_t i = 0; i < steps.size(); i += 2 + static_cast<size_t>(steps[i + 1])) {
    if (steps[i] == static_cast<int64_t>(MoveKind::permute)) return false;
  }
  return true;
}

}  // namespace

void sink_moves(Graph& graph) {
  for (size_t n = 0; n < graph.nodes.size();) {
    Node& consumer = graph.nodes[n];
    if (consumer.op != "clamp" && consumer.op != "quantize") {
      ++n;
      continue;
    }
    const int64_t moved = consumer.inputs[0];
    const auto move = std::find_if(graph.nodes.begin(), graph.nodes.end(), [&](const Node& node) {
      return node.op == "move" && node.output == moved;
    });
    if (move == graph.nodes.end() || !is_float(graph, moved) || count_uses(graph, moved) != 1) {
      ++n;
      continue;
    }
    const int64_t result = consumer.output;
    const auto qparams = graph.values[static_cast<size_t>(result)].qparams;
    consumer.inputs[0] = move->inputs[0];
    consumer.output = graph.add_value(qparams);
    if (keeps_order(*move)) {  // the same elements one after the other, under the same name
      std::swap(graph.values[static_cast<size_t>(consumer.output)].name,
                graph.values[static_cast<size_t>(result)].name);
    }
    move->inputs[0] = consumer.output;
    move->output = result;
    // The move goes behind the consumer. What stood between the two does not depend on either.
    std::rotate(move, move + 1, graph.nodes.begin() + static_cast<std::ptrdiff_t>(n) + 1);
    --n;  // where the consumer stands now; another move may be before it
  }
}

}  // namespace qatx::engine
