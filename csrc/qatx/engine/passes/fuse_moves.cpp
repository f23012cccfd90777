#include <algorithm>

#include "qatx/engine/moves.h"
#include "qatx/engine/passes/passes.h"

namespace qatx::engine {
namespace {

bool is_move(const Node& node) { return node.op == "move" && node.inputs.size() == 1; }

bool only_moves_read(const Graph& graph, int64_t value) {
  return std::count(graph.outputs.begin(), graph.outputs.end(), value) == 0 &&
         std::all_of(graph.nodes.begin(), graph.nodes.end(), [&](const Node& node) {
           return is_move(node) || std::count(node.inputs.begin(), node.inputs.end(), value) == 0;
         });
}

// The move before a move, if nothing but moves uses its result; or the end.
std::vector<Node>::iterator move_before(Graph& graph, const Node& node) {
  if (!is_move(node) || !only_moves_read(graph, node.inputs[0])) return graph.nodes.end();
  return std::find_if(graph.nodes.begin(), graph.nodes.end(), [&](const Node& other) {
    return other.output == node.inputs[0] && is_move(other);
  });
}

using Step = std::vector<int64_t>;  // kind, number of arguments, arguments

std::vector<Step> to_list(const std::vector<int64_t>& steps) {
  std::vector<Step> list;
  for (auto step = steps.begin(); step != steps.end();) {
    const auto end = step + 2 + step[1];
    list.emplace_back(step, end);
    step = end;
  }
  return list;
}

bool is(const Step& step, MoveKind kind) { return step[0] == static_cast<int64_t>(kind); }

// One permutation in place of two; empty where they undo each other.
Step compose(const Step& first, const Step& second) {
  Step both = second;
  bool moves = false;
  for (size_t i = 2; i < both.size(); ++i) {
    both[i] = first[static_cast<size_t>(second[i]) + 2];
    moves |= both[i] != static_cast<int64_t>(i) - 2;
  }
  return moves ? both : Step{};
}

// Leaves out what steps that follow each other undo.
std::vector<int64_t> simplify(const std::vector<int64_t>& steps) {
  std::vector<Step> kept;
  for (const Step& step : to_list(steps)) {
    Step* last = kept.empty() ? nullptr : &kept.back();
    if (last && is(step, MoveKind::permute) && is(*last, MoveKind::permute) &&
        last->size() == step.size()) {
      *last = compose(*last, step);
      if (last->empty()) kept.pop_back();
    } else if (last && is(step, MoveKind::merge) && is(*last, MoveKind::split) &&
               step[2] == (*last)[2] && step[3] == step[2] + 1) {
      kept.pop_back();
    } else {
      kept.push_back(step);
    }
  }
  std::vector<int64_t> all;
  for (const Step& step : kept) all.insert(all.end(), step.begin(), step.end());
  return all;
}

// Takes a move out that has no steps left, where its input can stand for its output.
void drop_idle_moves(Graph& graph) {
  const auto is_kept = [&](const Node& node) {
    return std::count(graph.inputs.begin(), graph.inputs.end(), node.inputs[0]) > 0 ||
           std::count(graph.outputs.begin(), graph.outputs.end(), node.output) > 0;
  };
  for (size_t n = 0; n < graph.nodes.size();) {
    const Node& node = graph.nodes[n];
    if (node.op != "move" || !node.ints.at("steps").empty() || is_kept(node)) {
      ++n;
      continue;
    }
    const int64_t from = node.output;
    const int64_t to = node.inputs[0];
    Value& value = graph.values[static_cast<size_t>(to)];
    if (value.name.empty()) value.name = graph.values[static_cast<size_t>(from)].name;
    for (Node& user : graph.nodes) std::replace(user.inputs.begin(), user.inputs.end(), from, to);
    graph.nodes.erase(graph.nodes.begin() + static_cast<std::ptrdiff_t>(n));
  }
}

// One move in place of several that do the same, unless an output or a name tells them apart.
void join_equal_moves(Graph& graph) {
  const auto name = [&](const Node& node) -> const std::string& {
    return graph.values[static_cast<size_t>(node.output)].name;
  };
  for (size_t n = 0; n < graph.nodes.size(); ++n) {
    for (size_t m = n + 1; is_move(graph.nodes[n]) && m < graph.nodes.size();) {
      const Node& first = graph.nodes[n];
      const Node& second = graph.nodes[m];
      const bool equal = is_move(second) && first.inputs == second.inputs &&
                         first.ints.at("steps") == second.ints.at("steps") &&
                         name(first) == name(second) &&
                         std::count(graph.outputs.begin(), graph.outputs.end(), second.output) == 0;
      if (!equal) {
        ++m;
        continue;
      }
      const int64_t from = second.output;
      const int64_t to = first.output;
      for (Node& user : graph.nodes) std::replace(user.inputs.begin(), user.inputs.end(), from, to);
      graph.nodes.erase(graph.nodes.begin() + static_cast<std::ptrdiff_t>(m));
    }
  }
}

}  // namespace

void fuse_moves(Graph& graph) {
  for (size_t n = 0; n < graph.nodes.size();) {
    const auto before = move_before(graph, graph.nodes[n]);
    if (before == graph.nodes.end()) {
      ++n;
      continue;
    }
    // This node may follow another move: it is looked at again.
    Node& node = graph.nodes[n];
    node.inputs = before->inputs;
    std::vector<int64_t>& steps = node.ints["steps"];
    const std::vector<int64_t>& first = before->ints["steps"];
    steps.insert(steps.begin(), first.begin(), first.end());
    if (count_uses(graph, before->output) == 0) {
      graph.nodes.erase(before);
      --n;  // nodes behind the one that is gone have moved up
    }
  }
  for (Node& node : graph.nodes) {
    if (node.op == "move") node.ints["steps"] = simplify(node.ints["steps"]);
  }
  drop_idle_moves(graph);
  join_equal_moves(graph);
}

}  // namespace qatx::engine
