#pragma once

#include <cstdint>
#include <vector>

namespace qatx::engine {

// The steps of operator "move", as its attribute "steps" names them.
enum class MoveKind : int64_t {
  reshape =
      0,  // to sizes, of which -1 takes the rest, and -2 - d is the size of dimension d before
  permute = 1,  // an order of all dimensions
  merge = 2,    // [first, last] dimension
  split = 3,    // [dimension, size]: it becomes two, the second one of this size
};

inline void add_move(std::vector<int64_t>& steps, MoveKind kind,
                     const std::vector<int64_t>& arguments) {
  steps.push_back(static_cast<int64_t>(kind));
  steps.push_back(static_cast<int64_t>(arguments.size()));
  steps.insert(steps.end(), arguments.begin(), arguments.end());
}

inline std::vector<int64_t> one_step(MoveKind kind, const std::vector<int64_t>& arguments) {
  std::vector<int64_t> steps;
  add_move(steps, kind, arguments);
  return steps;
}

}  // namespace qatx::engine
