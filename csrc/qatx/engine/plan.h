#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "qatx/engine/graph.h"
#include "qatx/engine/operator.h"
#include "qatx/engine/placement.h"

namespace qatx::engine {

// A program made ready for inputs of certain shapes: every size known, every step planned, and
// every intermediate value placed in one arena.
class Plan {
 public:
  // `operators` belong to graph.nodes and outlive the plan, like the graph.
  Plan(const Graph& graph, std::span<const std::unique_ptr<Operator>> operators,
       std::span<const Shape> inputs);

  // Inputs are checked by the caller. May run in many threads at once.
  std::vector<at::Tensor> run(std::span<const at::Tensor> inputs) const;

 private:
  at::Tensor take_arena() const;
  void give_back(at::Tensor arena) const;

  const Graph& graph_;
  std::vector<Shape> shapes_;  // by value
  std::vector<std::unique_ptr<Step>> steps_;
  Placement placement_;
  std::vector<bool> takes_any_layout_;  // by input: only "quantize" reads it
  std::vector<bool> is_mask_;           // by input: only a mask, which lies row by row
  bool empty_ = false;                  // some value has no elements: there is nothing to compute

  // One arena for each call that runs at the moment, kept for the next.
  mutable std::mutex mutex_;
  mutable std::vector<at::Tensor> arenas_;
};

}  // namespace qatx::engine
