#include <ATen/ops/full.h>

#include <algorithm>
#include <string_view>

#include "qatx/convert/rules/between.h"
#include "qatx/convert/rules/rules.h"

namespace qatx::torchscript {
namespace {

namespace jit = torch::jit;

// Whether all that reads a value is a fake-quantizer, perhaps after it is normalized once more.
bool is_quantized_next(const jit::Value* value) {
  const auto& uses = value->uses();
  return !uses.empty() && std::all_of(uses.begin(), uses.end(), [](const jit::Use& use) {
    const std::string_view kind = use.user->kind().toQualString();
    if (kind == "aten::layer_norm" || kind == "aten::softmax") {
      return is_quantized_next(use.user->output());
    }
    return kind == "qatx::fake_quantize" || kind == "qatx::pact" ||
           kind == "qatx::dynamic_fake_quantize";
  });
}

// One row of parameters, or `size` times what stands for none.
std::optional<at::Tensor> parameters(Lowering& lowering, const jit::Value* value, int64_t size,
                                     double none) {
  const auto constant = lowering.constant(value);
  if (!constant) return std::nullopt;
  if (constant->isNone()) return at::full({size}, none, at::kFloat);
  const at::Tensor given = constant->toTensor();
  if (!given.defined()) return at::full({size}, none, at::kFloat);
  if (given.scalar_type() != at::kFloat || given.numel() != size) return std::nullopt;
  return given.flatten().contiguous().clone();
}

}  // namespace

// Over the last dimension. Images have it as their channels, which lie last in memory.
std::string lower_layer_norm(Lowering& lowering, jit::Node* node) {
  jit::Value* x = node->input(0);
  const auto* sizes = lowering.sizes(x);
  const auto normalized = lowering.ints(node->input(1));
  const auto eps = lowering.constant(node->input(4));
  if (!sizes || !normalized || normalized->size() != 1 || !eps) {
    return "is not over the last dimension alone";
  }
  const auto weight = parameters(lowering, node->input(2), (*normalized)[0], 1.0);
  const auto bias = parameters(lowering, node->input(3), (*normalized)[0], 0.0);
  if (!weight || !bias) return "its parameters are not float32 constants";
  std::optional<int64_t> value = lowering.own_float(x);
  if (lowering.codes(x)) {
    value = lowering.use_codes(x);
  } else if (!value && is_quantized_next(node->output())) {
    value = lowering.use_float(x);
  }
  if (!value) return "neither its input nor its output is quantized";
  engine::Node norm{.op = "layer_norm"};
  norm.floats = {{"eps", {eps->toDouble()}}};
  norm.tensors = {{"weight", *weight}, {"bias", *bias}};
  norm.inputs = {*value};
  add_as_pixels(lowering, std::move(norm), x, node->output(), sizes->size());
  return "";
}

}  // namespace qatx::torchscript
