#include "qatx/engine/program.h"

#include <c10/util/Exception.h>
#include <torch/library.h>

#include <algorithm>
#include <tuple>

#include "qatx/engine/checksum.h"

namespace qatx::engine {
namespace {

// Plans of the shapes used last; an older one is made again when it comes back.
constexpr size_t kMostPlans = 32;

}  // namespace

Program::Program(Graph graph) : graph_(std::move(graph)) {
  check_graph(graph_);
  for (Node& node : graph_.nodes) {
    operators_.push_back(make_operator(graph_, node));
    if (operators_.back()->holds_weight()) node.tensors.erase("weight");
  }
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
