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
#include "qatx/engine/stages.h"

namespace qatx::engine {

// A program made ready for inputs of certain shapes: every size known, every step planned, and
// every intermediate value placed in memory.
class Plan {
 public:
  // `operators` belong to graph.nodes and outlive the plan, like the graph.
  Plan(const Graph& graph, std::span<const std::unique_ptr<Operator>> operators,
       std::span<const Shape> inputs);

  // Inputs are checked by the caller. May run in many threads at once.
  std::vector<at::Tensor> run(std::span<const at::Tensor> inputs) const;

 private:
  // Memory for one call, or one part of a stage, that runs at the moment, kept for the next.
  class Arenas {
   public:
    explicit Arenas(Arena arena) : arena_(std::move(arena)) {}
    at::Tensor take() const;
    void give_back(at::Tensor memory) const;

   private:
    Arena arena_;
    mutable std::mutex mutex_;
    mutable std::vector<at::Tensor> free_;
  };

  void plan_steps(std::span<const std::unique_ptr<Operator>> operators);
  std::vector<Shape> shapes_in(const Stage& stage, const Node& node) const;
  void run_stage(const Stage& stage, const std::vector<Buffer>& wholes) const;
  void run_part(const Stage& stage, int64_t part, const std::vector<Buffer>& buffers,
                std::span<const at::Tensor> recorded) const;
  // Those of one part of a stage, of which these are the wholes.
  void set_part(const Stage& stage, int64_t part, const std::vector<Buffer>& wholes,
                uint8_t* memory, std::vector<Buffer>& buffers) const;

  const Graph& graph_;
  std::vector<Shape> shapes_;  // by value
  Stages stages_;
  std::vector<std::unique_ptr<Step>> steps_;
  Placement placement_;
  std::vector<bool> takes_any_layout_;  // by input: only "quantize" reads it
  std::vector<bool> is_mask_;           // by input: only a mask, which lies row by row
  bool empty_ = false;                  // some value has no elements: there is nothing to compute
  std::unique_ptr<Arenas> wholes_;
  std::unique_ptr<Arenas> parts_;
};

}  // namespace qatx::engine
