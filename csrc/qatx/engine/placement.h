#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "qatx/engine/graph.h"
#include "qatx/engine/operator.h"

namespace qatx::engine {

// Where the values of a program lie in one arena, by value.
struct Placement {
  std::vector<int64_t> offsets;  // -1: not in the arena (inputs and outputs of the program)
  std::vector<int64_t> pitches;  // as in Buffer::pitch
  std::vector<int64_t> ends;     // of what is in the arena: kernels read behind them
  int64_t bytes = 0;
};

// Values that are never alive together share memory, as do a value and what is computed from it in
// place. What is only put together with others (cat) is made where the whole is.
Placement place_values(const Graph& graph, std::span<const std::unique_ptr<Operator>> operators,
                       const std::vector<Shape>& shapes);

// The shapes of a node's inputs.
std::vector<Shape> input_shapes(const Node& node, const std::vector<Shape>& shapes);

}  // namespace qatx::engine
