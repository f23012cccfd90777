#include "qatx/convert/constants.h"

#include <torch/csrc/jit/ir/constants.h>

#include "qatx/convert/evaluate.h"

namespace qatx::torchscript {
namespace jit = torch::jit;

void Constants::set(const jit::Value* value, c10::IValue constant) {
  known_[value] = std::move(constant);
}

std::optional<c10::IValue> Constants::get(const jit::Value* value) {
  if (const auto found = known_.find(value); found != known_.end()) return found->second;
  auto result = compute(value);
  known_[value] = result;
  return result;
}

std::optional<c10::IValue> Constants::compute(const jit::Value* value) {
  const jit::Node* node = value->node();
  if (node->kind() == c10::prim::Constant) return jit::toIValue(value);
  if (node->kind() == c10::prim::Param) return std::nullopt;
  std::vector<c10::IValue> inputs;
  for (const jit::Value* input : node->inputs()) {
    auto constant = get(input);
    if (!constant) return std::nullopt;
    inputs.push_back(std::move(*constant));
  }
  const auto outputs = evaluate(node, std::move(inputs));
  return outputs ? std::optional(outputs->at(value->offset())) : std::nullopt;
}

}  // namespace qatx::torchscript
