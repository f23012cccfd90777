#include "qatx/model/trace.h"

#include <ATen/core/grad_mode.h>
#include <torch/csrc/jit/frontend/tracer.h>
#include <torch/csrc/jit/ir/ir.h>

namespace qatx {
namespace {

namespace jit = torch::jit;

// A TorchScript module with the parameters, buffers and submodules of `module`, without methods.
jit::Module mirror(const torch::nn::Module& module, const std::string& name,
                   const std::shared_ptr<jit::CompilationUnit>& unit) {
  jit::Module result(c10::QualifiedName("__torch__.qatx." + name), unit, /*shouldMangle=*/true);
  for (const auto& item : module.named_parameters(/*recurse=*/false)) {
    result.register_parameter(item.key(), item.value(), /*is_buffer=*/false);
  }
  for (const auto& item : module.named_buffers(/*recurse=*/false)) {
    if (item.value().defined()) result.register_buffer(item.key(), item.value());
  }
  for (const auto& item : module.named_children()) {
    result.register_module(item.key(), mirror(*item.value(), name, unit));
  }
  return result;
}

}  // namespace

namespace detail {

void Tracing::enter(const torch::nn::Module& module, at::TensorList) {
  jit::Graph& graph = *jit::tracer::getTracingState()->graph;
  outer_.push_back(graph.current_scope());
  const auto path = paths_.find(&module);
  if (path == paths_.end() || path->second.empty()) return;
  graph.set_current_scope(
      c10::make_intrusive<jit::Scope>()->push(c10::Symbol::scope(path->second)));
}

void Tracing::leave(const torch::nn::Module&, const at::Tensor&) {
  jit::tracer::getTracingState()->graph->set_current_scope(outer_.back());
  outer_.pop_back();
}

jit::Module trace(const Model& model, const std::vector<at::Tensor>& inputs,
                  const std::function<std::unique_ptr<Tracing>()>& listen) {
  const at::NoGradGuard no_grad;
  const EvaluationMode evaluation(model.module());
  jit::Module traced = mirror(model.module(), "Traced", std::make_shared<jit::CompilationUnit>());
  jit::Stack stack(inputs.begin(), inputs.end());
  const auto forward = [&](jit::Stack given) -> jit::Stack {
    std::vector<at::Tensor> tensors;
    for (const c10::IValue& value : given) tensors.push_back(value.toTensor());
    const auto listener = listen();
    return {model.forward(tensors)};
  };
  std::vector<std::string> names;
  for (size_t i = 0; i < inputs.size(); ++i) names.push_back("x" + std::to_string(i));
  const auto state = jit::tracer::trace(
      std::move(stack), forward, [](const at::Tensor&) { return std::string(); },
      /*strict=*/true, /*force_outplace=*/false, &traced, names);
  auto* function = traced._ivalue()->compilation_unit()->create_function(
      c10::QualifiedName(*traced.type()->name(), "forward"), state.first->graph);
  traced.type()->addMethod(function);
  return traced;
}

}  // namespace detail

jit::Module trace(const Model& model, const std::vector<at::Tensor>& inputs) {
  const ModulePaths paths = paths_of(model.module());
  return detail::trace(model, inputs, [&] { return std::make_unique<detail::Tracing>(paths); });
}

}  // namespace qatx
