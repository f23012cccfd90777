#include "qatx/convert/rules/attention.h"

#include <algorithm>
#include <cmath>

#include "qatx/convert/rules/arguments.h"
#include "qatx/convert/rules/rules.h"
#include "qatx/convert/rules/sizes.h"
#include "qatx/engine/moves.h"
#include "qatx/engine/operators/layout.h"

namespace qatx::torchscript {
namespace {

namespace jit = torch::jit;

using engine::MoveKind;
using engine::one_step;

// A float32 value as the engine has it, and the steps that make of it what the model has: scores of
// several heads have four dimensions there, three here.
struct Scores {
  int64_t value;
  std::vector<int64_t> steps;
};

// Whether steps do nothing but split off the heads: what is done along the last dimensions, or to
// them, can be done before.
bool splits_heads(const std::vector<int64_t>& steps) {
  return steps.size() == 4 && steps[0] == static_cast<int64_t>(MoveKind::split) && steps[2] == 0;
}

// Of a value that a product of two tensors, or an embedding, has made, and that is used only here.
std::optional<Scores> find_scores(Lowering& lowering, const jit::Value* value) {
  const auto own = lowering.own_float(value);
  const engine::Node* node = own ? engine::producer(lowering.graph(), *own) : nullptr;
  if (!node) return std::nullopt;
  Scores scores{*own, {}};
  if (node->op == "move") {
    if (!splits_heads(node->ints.at("steps"))) return std::nullopt;
    scores = {node->inputs[0], node->ints.at("steps")};
    node = engine::producer(lowering.graph(), scores.value);
  }
  if (!node || (node->op != "matmul" && node->op != "affine" && node->op != "embedding")) {
    return std::nullopt;
  }
  return scores;
}

// Adds a node that makes float32, and what takes its result to where the model has it.
void add_moved(Lowering& lowering, engine::Node node, const std::vector<int64_t>& steps,
               jit::Value* output) {
  if (steps.empty()) {
    lowering.add_node(std::move(node), output, std::nullopt);
    return;
  }
  node.name = output->node()->scopeName();
  engine::Node move{.op = "move", .ints = {{"steps", steps}}};
  move.inputs = {add_inner(lowering, std::move(node), std::nullopt)};
  lowering.add_node(std::move(move), output, std::nullopt);
}

// A number, or a tensor that holds one.
std::optional<double> number(Lowering& lowering, const jit::Value* value) {
  const auto constant = lowering.constant(value);
  if (!constant) return std::nullopt;
  if (constant->isScalar()) return constant->toScalar().toDouble();
  if (!constant->isTensor() || !constant->toTensor().defined() || constant->toTensor().dim() != 0) {
    return std::nullopt;
  }
  return constant->toTensor().item().toDouble();
}

// Whether scores take this mask, as a reason why not.
std::string check_mask(Lowering& lowering, const Scores& scores, const jit::Value* x,
                       const jit::Value* mask) {
  const auto* sizes = lowering.sizes(x);
  const auto* mask_sizes = lowering.sizes(mask);
  if (!sizes || !mask_sizes || mask_sizes->empty() || mask_sizes->size() > sizes->size() ||
      mask_sizes->back() != sizes->back()) {
    return "the mask has not the dimensions of the scores";
  }
  if (sizes->size() != (scores.steps.empty() ? 3 : 4)) {
    return "what is masked has not three or four dimensions";
  }
  if (lowering.makes(mask) && mask_sizes->size() == 4 && (*mask_sizes)[1] != 1) {
    return "the mask differs between heads and is itself a result in integers";
  }
  return "";
}

// Where the mask is true (false, with `keep`) a number takes the place of the score.
std::string lower_score_fill(Lowering& lowering, jit::Node* node, jit::Value* x, jit::Value* mask,
                             const jit::Value* value, bool keep) {
  const auto scores = find_scores(lowering, x);
  if (!scores) return "input is not the product of two tensors of codes";
  const auto fill = number(lowering, value);
  if (!fill || std::isnan(*fill)) return "what replaces scores is not one constant number";
  if (!lowering.has_dtype(mask, at::kBool)) return "the mask is not bool";
  if (auto reason = check_mask(lowering, *scores, x, mask); !reason.empty()) return reason;
  engine::Node affine{.op = "affine", .inputs = {scores->value, lowering.use_mask(mask)}};
  affine.floats = {{"fill", {*fill}}};
  affine.ints = {{"keep", {keep}}};
  add_moved(lowering, std::move(affine), scores->steps, node->output());
  return "";
}

// Codes moved by these steps.
int64_t moved_codes(Lowering& lowering, jit::Value* value, std::vector<int64_t> steps) {
  const int64_t codes = lowering.use_codes(value);
  if (steps.empty()) return codes;
  engine::Node move{.op = "move", .inputs = {codes}, .ints = {{"steps", std::move(steps)}}};
  return add_inner(lowering, std::move(move), lowering.codes(value));
}

}  // namespace

std::string lower_matmul(Lowering& lowering, jit::Node* node) {
  jit::Value* a = node->input(0);
  jit::Value* b = node->input(1);
  if (lowering.constant(a) || lowering.constant(b)) return "one factor is constant";
  if (!lowering.codes(a) || !lowering.codes(b)) return "an input is not fake-quantized";
  const auto* sizes_a = lowering.sizes(a);
  const auto* sizes_b = lowering.sizes(b);
  if (!sizes_a || !sizes_b) return "its dimensions are not known";
  const size_t dimensions = sizes_a->size();
  if (sizes_b->size() != dimensions || (dimensions != 3 && dimensions != 4)) {
    return "its inputs have not three or four dimensions";
  }
  if (!std::equal(sizes_a->begin(), sizes_a->end() - 2, sizes_b->begin())) {
    return "its inputs are broadcast";
  }
  if (!engine::fits_weight(*lowering.codes(b))) {
    return "the second input is not quantized symmetrically";
  }
  const bool heads = dimensions == 4;
  std::vector<int64_t> steps_a;
  std::vector<int64_t> steps_b = one_step(
      MoveKind::permute, heads ? std::vector<int64_t>{0, 1, 3, 2} : std::vector<int64_t>{0, 2, 1});
  if (heads) {
    engine::add_move(steps_a, MoveKind::merge, {0, 1});
    engine::add_move(steps_b, MoveKind::merge, {0, 1});
  }
  const int64_t count = (*sizes_a)[1];
  engine::Node matmul{.op = "matmul"};
  matmul.inputs = {moved_codes(lowering, a, std::move(steps_a)),
                   moved_codes(lowering, b, std::move(steps_b))};
  add_moved(lowering, std::move(matmul),
            heads ? one_step(MoveKind::split, {0, count}) : std::vector<int64_t>{}, node->output());
  return "";
}

std::string lower_score_scale(Lowering& lowering, jit::Node* node, bool divide) {
  const bool first = lowering.constant(node->input(0)).has_value();
  if (first && divide) return "divides a constant";
  const auto scores = find_scores(lowering, node->input(first ? 1 : 0));
  if (!scores) return "input is not the product of two tensors of codes";
  const auto scale = number(lowering, node->input(first ? 0 : 1));
  if (!scale) return "its factor is not one constant number";
  if (!std::isfinite(static_cast<float>(*scale)) ||
      (divide && static_cast<float>(*scale) == 0.0f)) {
    return "its constant is not finite";
  }
  engine::Node affine{.op = "affine", .inputs = {scores->value}};
  affine.floats = {{"scale", {*scale}}};
  affine.ints = {{"divide", {divide}}};
  add_moved(lowering, std::move(affine), scores->steps, node->output());
  return "";
}

std::string lower_score_mask(Lowering& lowering, jit::Node* node) {
  jit::Value* x = node->input(0);
  jit::Value* mask = node->input(1);
  auto scores = find_scores(lowering, x);
  if (!scores) {
    std::swap(x, mask);
    scores = find_scores(lowering, x);
  }
  if (!scores) return "input is not the product of two tensors of codes";
  if (lowering.codes(mask) || !lowering.has_dtype(mask, at::kFloat)) {
    return "the mask is not float32";
  }
  if (auto reason = check_mask(lowering, *scores, x, mask); !reason.empty()) return reason;
  engine::Node affine{.op = "affine", .inputs = {scores->value, lowering.use_mask(mask)}};
  add_moved(lowering, std::move(affine), scores->steps, node->output());
  return "";
}

std::string lower_masked_fill(Lowering& lowering, jit::Node* node) {
  return lower_score_fill(lowering, node, node->input(0), node->input(1), node->input(2),
                          /*keep=*/false);
}

std::string lower_where(Lowering& lowering, jit::Node* node) {
  if (node->inputs().size() != 3) return "has no integer form";
  const bool keep = lowering.constant(node->input(2)).has_value();
  return lower_score_fill(lowering, node, node->input(keep ? 1 : 2), node->input(0),
                          node->input(keep ? 2 : 1), keep);
}

std::string lower_softmax(Lowering& lowering, jit::Node* node) {
  jit::Value* x = node->input(0);
  const auto* sizes = lowering.sizes(x);
  const auto dim = dimension(lowering, node->input(1), x);
  if (!sizes || !dim || *dim != static_cast<int64_t>(sizes->size()) - 1) {
    return "is not along the last dimension";
  }
  const auto dtype = lowering.constant(node->input(2));
  if (!dtype || !(dtype->isNone() || dtype->toInt() == static_cast<int64_t>(at::kFloat))) {
    return "its result is not float32";
  }
  if (sizes->size() == 5) return "its input has 5 dimensions";
  engine::Node softmax{.op = "softmax"};
  if (lowering.codes(x)) {
    const bool heads = sizes->size() == 4;
    softmax.inputs = {moved_codes(
        lowering, x, heads ? one_step(MoveKind::merge, {0, 1}) : std::vector<int64_t>{})};
    add_moved(lowering, std::move(softmax),
              heads ? one_step(MoveKind::split, {0, (*sizes)[1]}) : std::vector<int64_t>{},
              node->output());
    return "";
  }
  if (const auto scores = find_scores(lowering, x)) {
    softmax.inputs = {scores->value};
    add_moved(lowering, std::move(softmax), scores->steps, node->output());
    return "";
  }
  const auto value = lowering.own_float(x);
  if (!value) {
    return "input is neither fake-quantized nor an integer operator's result used only here";
  }
  softmax.inputs = {*value};
  std::vector<int64_t> split;
  if (engine::is_image(sizes->size())) {
    engine::Node merge{
        .op = "move", .inputs = {*value}, .ints = {{"steps", one_step(MoveKind::merge, {0, 1})}}};
    softmax.inputs = {add_inner(lowering, std::move(merge), std::nullopt)};
    split = one_step(MoveKind::split, {0, (*sizes)[1]});
  }
  add_moved(lowering, std::move(softmax), split, node->output());
  return "";
}

}  // namespace qatx::torchscript
