#include "qatx/convert/rules/arguments.h"

namespace qatx::torchscript {

std::optional<std::vector<int64_t>> pair(Lowering& lowering, const torch::jit::Value* value) {
  auto numbers = lowering.ints(value);
  if (numbers && numbers->size() == 1) numbers->push_back(numbers->front());
  return numbers && numbers->size() == 2 ? numbers : std::nullopt;
}

bool has_dimensions(const Lowering& lowering, const torch::jit::Value* value, size_t dimensions) {
  const auto* sizes = lowering.sizes(value);
  return sizes && sizes->size() == dimensions;
}

}  // namespace qatx::torchscript
