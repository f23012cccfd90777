#include "qatx/convert/evaluate.h"

#include <torch/csrc/jit/ir/constants.h>

namespace qatx::torchscript {
namespace {

namespace jit = torch::jit;

c10::IValue make_list(const jit::Node* node, const std::vector<c10::IValue>& items) {
  c10::impl::GenericList list(node->output()->type()->expectRef<c10::ListType>().getElementType());
  for (const c10::IValue& item : items) list.push_back(item);
  return list;
}

}  // namespace

std::optional<std::vector<c10::IValue>> evaluate(const jit::Node* node,
                                                 std::vector<c10::IValue> inputs, bool random) {
  // The interpreter has instructions of its own for these.
  switch (node->kind()) {
    case c10::prim::ListConstruct:
      return {{make_list(node, inputs)}};
    case c10::prim::TupleConstruct:
      return {{c10::ivalue::Tuple::create(std::move(inputs))}};
    case c10::prim::TupleUnpack:
      return inputs.at(0).toTupleRef().elements().vec();
    case c10::prim::ListUnpack:
      return inputs.at(0).toListRef().vec();
    default:
      break;
  }
  if (!node->blocks().empty() || !node->maybeOperator() || node->hasSideEffects() ||
      (node->isNondeterministic() && !random)) {
    return std::nullopt;
  }
  jit::Stack stack = std::move(inputs);
  node->getOperation()(stack);
  return stack;
}

TensorTypes record_types(const jit::Graph& graph,
                         std::unordered_map<const jit::Value*, c10::IValue> known) {
  TensorTypes types;
  for (const jit::Node* node : graph.nodes()) {
    std::optional<std::vector<c10::IValue>> outputs;
    if (node->kind() == c10::prim::Constant) {
      outputs = {{*jit::toIValue(node->output())}};
    } else {
      std::vector<c10::IValue> inputs;
      for (const jit::Value* input : node->inputs()) {
        if (const auto found = known.find(input); found != known.end()) {
          inputs.push_back(found->second);
        }
      }
      if (inputs.size() == node->inputs().size())
        outputs = evaluate(node, std::move(inputs), /*random=*/true);
    }
    if (!outputs || outputs->size() != node->outputs().size()) continue;
    for (size_t i = 0; i < outputs->size(); ++i) known[node->outputs()[i]] = (*outputs)[i];
  }
  for (const auto& [value, ivalue] : known) {
    if (ivalue.isTensor() && ivalue.toTensor().defined()) {
      types[value] = {ivalue.toTensor().sizes().vec(), ivalue.toTensor().scalar_type()};
    }
  }
  return types;
}

}  // namespace qatx::torchscript
