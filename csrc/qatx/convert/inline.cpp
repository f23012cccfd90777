#include "qatx/convert/inline.h"

#include <torch/csrc/jit/api/function_impl.h>
#include <torch/csrc/jit/passes/inliner.h>

#include <vector>

namespace qatx::torchscript {
namespace {

namespace jit = torch::jit;

jit::Node* find_call(jit::Graph& graph) {
  for (jit::Node* node : graph.nodes()) {
    if (node->kind() == c10::prim::CallMethod && node->input(0)->type()->cast<c10::ClassType>()) {
      return node;
    }
  }
  return nullptr;
}

// "layer1.0.conv1" for the chain of prim::GetAttr that leads to a submodule.
std::string attribute_path(const jit::Value* module) {
  const jit::Node* node = module->node();
  if (node->kind() != c10::prim::GetAttr) return "";
  const std::string parent = attribute_path(node->input(0));
  return (parent.empty() ? "" : parent + ".") + node->s(c10::attr::name);
}

}  // namespace

// jit::Inline alone would note only the last part of each path.
void inline_modules(jit::Graph& graph) {
  while (jit::Node* call = find_call(graph)) {
    const auto scope =
        c10::make_intrusive<jit::Scope>()->push(c10::Symbol::scope(attribute_path(call->input(0))));
    auto& method =
        call->input(0)->type()->expectRef<c10::ClassType>().getMethod(call->s(c10::attr::name));
    jit::Node* before = call->prev();
    jit::Node* after = call->next();
    // Otherwise it takes the method's optimized graph, where inner calls are inlined already.
    jit::inlineCallTo(call, &jit::toGraphFunction(method), /*use_graph=*/false);
    for (jit::Node* node = before->next(); node != after; node = node->next()) {
      node->setScope(scope);
    }
  }
  jit::Inline(graph);
}

std::string module_path(const jit::Node* node) { return node->scopeName(); }

}  // namespace qatx::torchscript
