#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "qatx/engine/graph.h"
#include "qatx/engine/operator.h"
#include "qatx/engine/stages.h"

namespace qatx::engine {

// Memory for values.
struct Arena {
  int64_t bytes = 0;
  std::vector<int64_t> ends;  // of what is in it: kernels read behind them
};

// Where the values of a program lie, by value.
struct Placement {
  std::vector<int64_t> offsets;  // -1: in no arena (inputs and outputs of the program)
  std::vector<int64_t> pitches;  // as in Buffer::pitch
  // Made and read in one stage of several parts: a part of the value is in an arena that all parts
  // use, one after the other, and all stages.
  std::vector<bool> in_part;
  Arena whole;
  Arena part;
};

// Values that are never alive together share memory, as do a value and what is computed from it in
// place. What is only put together with others (cat) is made where the whole is. Rows lie a little
// apart where those that read them are faster then, and all take it.
Placement place_values(const Graph& graph, std::span<const std::unique_ptr<Operator>> operators,
                       const std::vector<Shape>& shapes, const std::vector<Stage>& stages);

// The shapes of a node's inputs.
std::vector<Shape> input_shapes(const Node& node, const std::vector<Shape>& shapes);

}  // namespace qatx::engine
