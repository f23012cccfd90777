#include <limits>

#include "qatx/convert/rules/rules.h"
#include "qatx/engine/passes/passes.h"

namespace qatx::torchscript {
namespace {

namespace jit = torch::jit;

bool same_sizes(const Lowering& lowering, const jit::Value* a, const jit::Value* b) {
  const auto* sizes_a = lowering.sizes(a);
  const auto* sizes_b = lowering.sizes(b);
  return sizes_a && sizes_b && *sizes_a == *sizes_b;
}

// Bounds of the activations that are a clamp: [0, inf] for ReLU.
std::optional<std::pair<double, double>> bounds(Lowering& lowering, const jit::Node* node) {
  constexpr double kInf = std::numeric_limits<double>::infinity();
  const std::string_view kind = node->kind().toQualString();
  if (kind == "aten::relu") return {{0.0, kInf}};
  if (kind == "aten::relu6") return {{0.0, 6.0}};
  const auto least = lowering.constant(node->input(1));
  const auto most = lowering.constant(node->input(2));
  const auto is_bound = [](const std::optional<c10::IValue>& bound) {
    return bound && (bound->isNone() || bound->isScalar());
  };
  if (!is_bound(least) || !is_bound(most)) return std::nullopt;
  return {{least->isNone() ? -kInf : least->toScalar().toDouble(),
           most->isNone() ? kInf : most->toScalar().toDouble()}};
}

}  // namespace

std::string lower_add(Lowering& lowering, jit::Node* node) {
  if (node->inputs().size() != 3) return "is no sum of tensors";  // of two numbers, or lists
  jit::Value* a = node->input(0);
  jit::Value* b = node->input(1);
  const auto alpha = lowering.constant(node->input(2));
  if (!alpha || !alpha->isScalar() || alpha->toScalar().toDouble() != 1.0) return "alpha is not 1";
  if (lowering.constant(a) || lowering.constant(b)) return lower_table(lowering, node);
  if (lowering.codes(b) && !lowering.codes(a)) std::swap(a, b);
  if (!lowering.codes(a)) return "no input is fake-quantized";
  engine::Node add{.op = "add"};
  if (lowering.codes(b)) {
    add.inputs = {lowering.use_codes(a), lowering.use_codes(b)};
  } else {
    const auto value = lowering.own_float(b);
    if (!value || !engine::can_fuse_residual(lowering.graph(), *value)) {
      return "one input is neither fake-quantized nor an integer layer's output used only here";
    }
    if (!same_sizes(lowering, a, b)) return "inputs differ in shape, and one is not fake-quantized";
    add.inputs = {*value, lowering.use_codes(a)};
  }
  lowering.add_node(std::move(add), node->output(), std::nullopt);
  return "";
}

std::string lower_mul(Lowering& lowering, jit::Node* node) {
  jit::Value* a = node->input(0);
  jit::Value* b = node->input(1);
  if (lowering.constant(a) || lowering.constant(b)) return lower_table(lowering, node);
  if (!lowering.codes(a) || !lowering.codes(b)) return "an input is not fake-quantized";
  engine::Node mul{.op = "mul"};
  mul.inputs = {lowering.use_codes(a), lowering.use_codes(b)};
  lowering.add_node(std::move(mul), node->output(), std::nullopt);
  return "";
}

// A clamp: done by the layer that makes the value, where there is one.
std::string lower_activation(Lowering& lowering, jit::Node* node) {
  if (lowering.codes(node->input(0))) return lower_table(lowering, node);
  const auto value = lowering.own_float(node->input(0));
  if (!value || !engine::can_fuse_clamp(lowering.graph(), *value)) {
    return "input is no integer layer's output used only here";
  }
  const auto limits = bounds(lowering, node);
  if (!limits || !(limits->first <= limits->second)) return "bounds are not constant";
  engine::Node clamp{.op = "clamp", .inputs = {*value}};
  clamp.floats = {{"clamp", {limits->first, limits->second}}};
  lowering.add_node(std::move(clamp), node->output(), std::nullopt);
  return "";
}

}  // namespace qatx::torchscript
