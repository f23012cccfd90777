#include "qatx/convert/rules/arguments.h"

namespace qatx::torchscript {

std::optional<std::vector<int64_t>> numbers(Lowering& lowering, const torch::jit::Value* value,
                                            size_t count) {
  auto given = lowering.ints(value);
  if (given && given->size() == 1) given->resize(count, given->front());
  return given && given->size() == count ? given : std::nullopt;
}

bool has_dimensions(const Lowering& lowering, const torch::jit::Value* value, size_t dimensions) {
  const auto* sizes = lowering.sizes(value);
  return sizes && sizes->size() == dimensions;
}

}  // namespace qatx::torchscript
