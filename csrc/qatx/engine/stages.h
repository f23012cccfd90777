#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "qatx/engine/graph.h"
#include "qatx/engine/operator.h"

namespace qatx::engine {

// Nodes [begin, end), run for a part of the batch at a time: all of them for the first part, then
// all for the next. What they make for one another stays in the caches.
struct Stage {
  size_t begin;
  size_t end;
  int64_t parts;  // 1: the whole batch at once, node by node
};

// All nodes in their order, and the values that parts are made of.
struct Stages {
  std::vector<Stage> stages;
  std::vector<bool>
      divided;  // by value: it consists of samples, which follow one another in memory
};

// Divides nodes into stages so that the least is read and written behind the second cache, of
// `cache_bytes`: the values that leave a stage or do not fit, and weights, once for each part.
// `shapes` are those of all values.
Stages make_stages(const Graph& graph, std::span<const std::unique_ptr<Operator>> operators,
                   const std::vector<Shape>& shapes, int64_t cache_bytes);

// Of a core: what the system says, or environment variable QATX_L2_BYTES, which is read each time.
int64_t second_cache_bytes();

}  // namespace qatx::engine
