#include <limits>
#include <utility>

#include "qatx/convert/rules/attention.h"
#include "qatx/convert/rules/rules.h"
#include "qatx/convert/rules/sizes.h"
#include "qatx/convert/rules/table.h"
#include "qatx/engine/moves.h"
#include "qatx/engine/passes/passes.h"

namespace qatx::torchscript {
namespace {

namespace jit = torch::jit;

bool same_sizes(const Lowering& lowering, const jit::Value* a, const jit::Value* b) {
  const auto* sizes_a = lowering.sizes(a);
  const auto* sizes_b = lowering.sizes(b);
  return sizes_a && sizes_b && *sizes_a == *sizes_b;
}

// What undoes the step of a move, for those that stand behind lines and rows that a layer has taken
// for images; empty for others.
std::vector<int64_t> inverse_step(const std::vector<int64_t>& step) {
  std::vector<int64_t> inverse;
  const std::vector<int64_t> arguments(step.begin() + 2, step.end());
  if (step[1] != static_cast<int64_t>(arguments.size())) return {};  // several steps
  const auto kind = static_cast<engine::MoveKind>(step[0]);
  if (kind == engine::MoveKind::permute) {
    std::vector<int64_t> order(arguments.size());
    for (size_t d = 0; d < order.size(); ++d) {
      order[static_cast<size_t>(arguments[d])] = static_cast<int64_t>(d);
    }
    engine::add_move(inverse, kind, order);
  } else if (kind == engine::MoveKind::reshape && arguments == std::vector<int64_t>{-2, -3, -5}) {
    engine::add_move(inverse, kind, {-2, -3, 1, -4});
  }
  return inverse;
}

// Adds codes to a layer's result before that is moved, where they are moved the other way: so the
// addition can be done inside the layer.
bool add_before_move(Lowering& lowering, int64_t moved, jit::Value* codes, jit::Value* output) {
  const engine::Node* move = engine::producer(lowering.graph(), moved);
  if (!move || move->op != "move" ||
      !engine::can_fuse_residual(lowering.graph(), move->inputs[0])) {
    return false;
  }
  const int64_t value = move->inputs[0];
  const auto step = move->ints.at("steps");
  const auto inverse = inverse_step(step);
  if (inverse.empty()) return false;
  engine::Node back{.op = "move", .ints = {{"steps", inverse}}};
  back.inputs = {lowering.use_codes(codes)};
  engine::Node add{.op = "add"};
  add.inputs = {value, add_inner(lowering, std::move(back), lowering.codes(codes))};
  engine::Node again{.op = "move", .ints = {{"steps", step}}};
  again.inputs = {add_inner(lowering, std::move(add), std::nullopt)};
  lowering.add_node(std::move(again), output, std::nullopt);
  return true;
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
  if (lowering.constant(a) || lowering.constant(b)) {
    // Tables take what is a mask of one row, too, but for codes.
    if (lower_score_mask(lowering, node).empty()) return "";
    return lower_table(lowering, node);
  }
  if (lowering.codes(b) && !lowering.codes(a)) std::swap(a, b);
  if (!lowering.codes(a)) {
    return lower_score_mask(lowering, node).empty() ? "" : "no input is fake-quantized";
  }
  engine::Node add{.op = "add"};
  if (lowering.codes(b)) {
    add.inputs = {lowering.use_codes(a), lowering.use_codes(b)};
  } else {
    const auto value = lowering.own_float(b);
    if (value && same_sizes(lowering, a, b) &&
        add_before_move(lowering, *value, a, node->output())) {
      return "";
    }
    if (!value || !engine::can_fuse_residual(lowering.graph(), *value)) {
      return "one input is neither fake-quantized nor an integer layer's output used only here";
    }
    if (!same_sizes(lowering, a, b)) return "inputs differ in shape, and one is not fake-quantized";
    add.inputs = {*value, lowering.use_codes(a)};
  }
  lowering.add_node(std::move(add), node->output(), std::nullopt);
  return "";
}

// Adds the negative of what the codes of b stand for.
std::string lower_sub(Lowering& lowering, jit::Node* node) {
  if (node->inputs().size() != 3) return "is no difference of tensors";
  jit::Value* a = node->input(0);
  jit::Value* b = node->input(1);
  if (lowering.constant(a) || lowering.constant(b)) return lower_table(lowering, node);
  const auto alpha = lowering.constant(node->input(2));
  if (!alpha || !alpha->isScalar() || alpha->toScalar().toDouble() != 1.0) return "alpha is not 1";
  if (!lowering.codes(a) || !lowering.codes(b)) return "an input is not fake-quantized";
  engine::Node sub{.op = "sub"};
  sub.inputs = {lowering.use_codes(a), lowering.use_codes(b)};
  lowering.add_node(std::move(sub), node->output(), std::nullopt);
  return "";
}

std::string lower_div(Lowering& lowering, jit::Node* node) {
  if (lower_score_scale(lowering, node, /*divide=*/true).empty()) return "";
  const bool two = node->inputs().size() == 2 && lowering.codes(node->input(0)) &&
                   lowering.codes(node->input(1));
  if (!two) return lower_table(lowering, node);
  engine::Node div{.op = "div"};
  div.inputs = {lowering.use_codes(node->input(0)), lowering.use_codes(node->input(1))};
  lowering.add_node(std::move(div), node->output(), std::nullopt);
  return "";
}

std::string lower_mul(Lowering& lowering, jit::Node* node) {
  jit::Value* a = node->input(0);
  jit::Value* b = node->input(1);
  if (lowering.constant(a) || lowering.constant(b)) {
    if (lower_score_scale(lowering, node, /*divide=*/false).empty()) return "";
    return lower_table(lowering, node);
  }
  if (!lowering.codes(a) || !lowering.codes(b)) return "an input is not fake-quantized";
  engine::Node mul{.op = "mul"};
  mul.inputs = {lowering.use_codes(a), lowering.use_codes(b)};
  lowering.add_node(std::move(mul), node->output(), std::nullopt);
  return "";
}

// A clamp: done by the layer that makes the value, where there is one.
std::string lower_activation(Lowering& lowering, jit::Node* node) {
  if (lowering.codes(node->input(0)) || is_table(lowering, node->input(0))) {
    return lower_table(lowering, node);
  }
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
