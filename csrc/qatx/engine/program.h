#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/ivalue.h>
#include <c10/macros/Export.h>
#include <torch/custom_class.h>

#include <list>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "qatx/engine/graph.h"
#include "qatx/engine/operator.h"
#include "qatx/engine/plan.h"

namespace qatx::engine {

// An integer program inside a TorchScript module (class torch.classes.qatx.Program): float32
// tensors in, float32 tensors out. Immutable but for a cache of plans, so one program may run in
// many threads at once.
class C10_EXPORT Program final : public torch::CustomClassHolder {
 public:
  // Checks the graph and packs its weights for the instruction set in use. Throws c10::Error.
  explicit Program(Graph graph);

  // One CPU tensor for each input, float32 or, for indices, int64, and for a mask bool; NaN counts
  // as 0.0. Throws c10::Error for a wrong number, dtype, device, index, or a shape that the program
  // cannot take.
  std::vector<at::Tensor> run(const std::vector<at::Tensor>& inputs) const;

  // The graph that it was made of, with all weights.
  Graph graph() const;

 private:
  std::shared_ptr<const Plan> plan_for(std::vector<Shape> shapes) const;

  Graph graph_;  // without the weights that operators hold
  std::vector<std::unique_ptr<Operator>> operators_;

  mutable std::mutex mutex_;
  mutable std::list<std::pair<std::vector<Shape>, std::shared_ptr<const Plan>>> plans_;
};

}  // namespace qatx::engine
