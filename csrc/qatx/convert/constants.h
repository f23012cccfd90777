#pragma once

#include <torch/csrc/jit/ir/ir.h>

#include <optional>
#include <unordered_map>

namespace qatx::torchscript {

// The values of a graph that do not depend on its inputs, computed when they are asked for.
class Constants {
 public:
  void set(const torch::jit::Value* value, c10::IValue constant);
  std::optional<c10::IValue> get(const torch::jit::Value* value);

 private:
  std::optional<c10::IValue> compute(const torch::jit::Value* value);

  std::unordered_map<const torch::jit::Value*, std::optional<c10::IValue>> known_;
};

}  // namespace qatx::torchscript
