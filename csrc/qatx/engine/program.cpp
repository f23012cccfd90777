#include "qatx/engine/program.h"

#include <ATen/Parallel.h>
#include <c10/util/Exception.h>
#include <torch/library.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <exception>
#include <tuple>

#include "qatx/engine/checksum.h"
#include "qatx/engine/memory.h"
#include "qatx/kernels/ceil_div.h"

namespace qatx::engine {
namespace {

// Plans of the shapes used last; an older one is made again when it comes back.
constexpr size_t kMostPlans = 32;

// On Torch's threads, for packing weights takes time; of several errors the first node's is thrown.
std::vector<std::unique_ptr<Operator>> make_operators(const Graph& graph) {
  const size_t count = graph.nodes.size();
  std::vector<std::unique_ptr<Operator>> operators(count);
  std::vector<std::exception_ptr> errors(count);
  std::atomic<size_t> next{0};  // layers differ in size: each thread takes one when it is free
  at::parallel_for(0, at::get_num_threads(), 1, [&](int64_t, int64_t) {
    for (size_t n = next++; n < count; n = next++) {
      try {
        operators[n] = make_operator(graph, graph.nodes[n]);
      } catch (...) {
        errors[n] = std::current_exception();
      }
    }
  });
  for (const std::exception_ptr& error : errors) {
    if (error) std::rethrow_exception(error);
  }
  return operators;
}

// Copies all weights to one place, in the order in which they are read.
void put_together(std::span<const std::unique_ptr<Operator>> operators) {
  constexpr int64_t kAlignment = 64;
  const auto room = [](const at::Tensor& weight) {
    return kernels::ceil_div(weight.numel(), kAlignment) * kAlignment;
  };
  int64_t bytes = 0;
  for (const auto& op : operators) {
    for (const at::Tensor* weight : op->packed_weights()) bytes += room(*weight);
  }
  const at::Tensor all = allocate(bytes, 2 << 20);
  int64_t offset = 0;
  for (const auto& op : operators) {
    for (at::Tensor* weight : op->packed_weights()) {
      const at::Tensor place = all.narrow(0, offset, weight->numel());
      offset += room(*weight);
      std::memcpy(place.mutable_data_ptr(), weight->const_data_ptr(),
                  static_cast<size_t>(weight->numel()));
      *weight = place;
    }
  }
}

}  // namespace

Program::Program(Graph graph) : graph_(std::move(graph)) {
  check_graph(graph_);
  operators_ = make_operators(graph_);
  for (size_t n = 0; n < operators_.size(); ++n) {
    if (operators_[n]->holds_weight()) graph_.nodes[n].tensors.erase("weight");
  }
  put_together(operators_);
}

Graph Program::graph() const {
  Graph graph = graph_;
  for (size_t i = 0; i < operators_.size(); ++i) {
    if (operators_[i]->holds_weight()) graph.nodes[i].tensors["weight"] = operators_[i]->weight();
  }
  return graph;
}

std::shared_ptr<const Plan> Program::plan_for(std::vector<Shape> shapes) const {
  const std::lock_guard lock(mutex_);
  const auto found = std::find_if(plans_.begin(), plans_.end(),
                                  [&](const auto& entry) { return entry.first == shapes; });
  if (found != plans_.end()) {
    plans_.splice(plans_.begin(), plans_, found);
  } else {
    auto plan = std::make_shared<const Plan>(graph_, operators_, shapes);
    plans_.emplace_front(std::move(shapes), std::move(plan));
    if (plans_.size() > kMostPlans) plans_.pop_back();
  }
  return plans_.front().second;
}

std::vector<at::Tensor> Program::run(const std::vector<at::Tensor>& inputs) const {
  TORCH_CHECK_VALUE(inputs.size() == graph_.inputs.size(), "qatx program: takes ",
                    graph_.inputs.size(), " inputs, got ", inputs.size());
  std::vector<Shape> shapes;
  for (size_t i = 0; i < inputs.size(); ++i) {
    const at::Tensor& input = inputs[i];
    const at::ScalarType dtype = graph_.values[static_cast<size_t>(graph_.inputs[i])].dtype;
    TORCH_CHECK_TYPE(input.scalar_type() == dtype, "qatx program: input ", i, " must be ",
                     dtype == at::kLong   ? "int64"
                     : dtype == at::kBool ? "bool"
                                          : "float32",
                     ", got ", c10::toString(input.scalar_type()));
    TORCH_CHECK_VALUE(input.device().is_cpu() && input.layout() == at::kStrided,
                      "qatx program: input ", i, " must be a dense tensor on the CPU, got ",
                      input.device());
    shapes.push_back(input.sizes().vec());
  }
  return plan_for(std::move(shapes))->run(inputs);
}

TORCH_LIBRARY_FRAGMENT(qatx, m) {
  m.class_<Program>("Program")
      .def("run", [](const c10::intrusive_ptr<Program>& self,
                     const std::vector<at::Tensor>& inputs) { return self->run(inputs); })
      .def_pickle(
          [](const c10::intrusive_ptr<Program>& self) {
            const Graph graph = self->graph();
            return std::make_tuple(to_state(graph), checksum(graph));
          },
          [](const std::tuple<GraphState, int64_t>& state) {
            Graph graph = from_state(std::get<0>(state));
            TORCH_CHECK_VALUE(checksum(graph) == std::get<1>(state),
                              "qatx program: the file has been altered or damaged: its checksum is "
                              "not that of its contents");
            return c10::make_intrusive<Program>(std::move(graph));
          });
  m.def("run_program(__torch__.torch.classes.qatx.Program program, Tensor[] inputs) -> Tensor[]");
}

// One implementation for all devices, so that a tensor on a wrong one gets Program::run's error.
TORCH_LIBRARY_IMPL(qatx, CompositeExplicitAutograd, m) {
  m.impl("run_program", [](const c10::intrusive_ptr<Program>& program,
                           const std::vector<at::Tensor>& inputs) { return program->run(inputs); });
}

}  // namespace qatx::engine
