#include "qatx/convert/lowering.h"

#include <c10/util/Exception.h>
#include <c10/util/accumulate.h>

#include <algorithm>

#include "qatx/convert/inline.h"
#include "qatx/convert/rules/rules.h"
#include "qatx/convert/rules/sizes.h"
#include "qatx/engine/passes/passes.h"

namespace qatx::torchscript {
namespace {

namespace jit = torch::jit;

bool makes_tensor(const jit::Node* node) {
  return std::any_of(node->outputs().begin(), node->outputs().end(), [](const jit::Value* output) {
    return output->type()->isSubtypeOf(*c10::TensorType::get());
  });
}

// Whether a value is computed from sizes alone, in tensors, as tracing has it.
bool is_measured(const jit::Value* value) {
  const jit::Node* node = value->node();
  const auto kind = node->kind();
  if (kind == c10::prim::NumToTensor || kind == c10::prim::Constant) return true;
  const bool arithmetic = kind == c10::aten::floor_divide || kind == c10::aten::mul ||
                          kind == c10::aten::add || kind == c10::aten::sub ||
                          kind == c10::aten::div;
  return arithmetic && std::all_of(node->inputs().begin(), node->inputs().end(), is_measured);
}

// Whether a value is no data: a number, numbers, or a tensor that holds a number made of sizes.
// Rules read it only where it does not depend on the data.
bool is_number(const jit::Value* value) {
  const auto& type = value->type();
  return type->isSubtypeOf(*c10::NumberType::get()) ||
         type->isSubtypeOf(*c10::ListType::ofInts()) || is_measured(value);
}

// Whether a value follows from sizes and constants, as a causal mask does.
bool is_made_of_sizes(const jit::Value* value) {
  const jit::Node* node = value->node();
  if (node->kind() == c10::aten::size || node->kind() == c10::aten::numel ||
      node->kind() == c10::prim::Constant) {
    return true;
  }
  return node->blocks().empty() && !node->inputs().empty() &&
         std::all_of(node->inputs().begin(), node->inputs().end(), is_made_of_sizes);
}

// Nodes that only hold, name or measure data.
bool is_plumbing(const jit::Node* node) {
  const auto kind = node->kind();
  return kind.is_prim() || !makes_tensor(node) || kind == c10::aten::detach ||
         kind == c10::aten::size ||
         (node->outputs().size() == 1 && is_made_of_sizes(node->output()));
}

}  // namespace

int64_t Island::add_input(jit::Value* value) {
  const int64_t input = graph.add_value(std::nullopt);
  graph.inputs.push_back(input);
  inputs.push_back(value);
  return input;
}

Lowering::Lowering(const jit::Graph& graph, Constants& constants, TensorTypes types)
    : constants_(constants), types_(std::move(types)) {
  for (const jit::Value* input : graph.inputs()) value_levels_[input] = 0;
  for (jit::Node* node : const_cast<jit::Graph&>(graph).nodes()) lower(node);
}

const std::vector<int64_t>* Lowering::sizes(const jit::Value* value) const {
  const auto found = types_.find(value);
  return found == types_.end() ? nullptr : &found->second.sizes;
}

bool Lowering::has_dtype(const jit::Value* value, at::ScalarType dtype) const {
  const auto found = types_.find(value);
  return found != types_.end() && found->second.dtype == dtype;
}

// Multiply-adds of a convolution, linear layer or matrix product for the example inputs.
int64_t Lowering::count_macs(const jit::Node* node) {
  const std::string_view kind = node->kind().toQualString();
  if (kind == "aten::matmul" || kind == "aten::bmm") {
    const auto* out = sizes(node->output());
    const auto* a = sizes(node->input(0));
    return out && a && !a->empty() ? c10::multiply_integers(*out) * a->back() : 0;
  }
  const bool weighted = kind == "aten::_convolution" || kind == "aten::_convolution_mode" ||
                        kind == "aten::conv1d" || kind == "aten::conv2d" ||
                        kind == "aten::conv3d" || kind == "aten::linear";
  if (!weighted) return 0;
  // A transposed convolution meets each input element once, and its weight has the input channels
  // first.
  const bool transposed =
      kind == "aten::_convolution" && ints(node->input(6)) == std::vector<int64_t>{1};
  const auto* met = sizes(transposed ? node->input(0) : node->output());
  const auto* weight = sizes(node->input(1));
  if (!met || !weight || weight->empty() || (*weight)[0] == 0) return 0;
  return c10::multiply_integers(*met) * (c10::multiply_integers(*weight) / (*weight)[0]);
}

bool Lowering::is_constant(const jit::Node* node) {
  return std::all_of(node->outputs().begin(), node->outputs().end(),
                     [&](const jit::Value* output) { return constants_.get(output).has_value(); });
}

void Lowering::lower(jit::Node* node) {
  if (node->kind() == c10::aten::size && node->inputs().size() == 2) {
    measure_input(*this, node);
    node_levels_.try_emplace(node->input(1)->node(), 0);  // a constant that may be new
  }
  // Values that blocks of control flow use from outside count as inputs.
  size_t level = 0;
  size_t level_outside = 0;
  const auto visit = [&](const jit::Value* value) {
    const auto found = value_levels_.find(value);
    if (found == value_levels_.end()) return;  // a constant, or made inside the block
    const bool from_island = lowered_.contains(value->node());
    if (!is_number(value)) level = std::max(level, found->second);
    level_outside = std::max(level_outside, found->second + (from_island ? 1 : 0));
  };
  const auto visit_all = [&](const auto& self, const jit::Node* n) -> void {
    for (const jit::Value* input : n->inputs()) visit(input);
    for (const jit::Block* block : n->blocks()) {
      for (const jit::Node* inner : block->nodes()) self(self, inner);
      self(self, block->return_node());
    }
  };
  visit_all(visit_all, node);

  if (!node->outputs().empty() && is_constant(node)) {
    node_levels_[node] = 0;
    for (const jit::Value* output : node->outputs()) value_levels_[output] = 0;
    return;
  }
  level_ = level;
  weight_bytes_ = 0;
  if (islands_.size() <= level_) islands_.resize(level_ + 1);
  const Rule rule = find_rule(node->kind().toQualString());
  std::string reason = rule ? rule(*this, node) : "has no integer form";
  const bool lowered = reason.empty();
  if (lowered) lowered_[node] = level;
  node_levels_[node] = lowered ? level : level_outside;
  for (const jit::Value* output : node->outputs()) value_levels_[output] = node_levels_[node];
  if (!is_plumbing(node)) add_report(node, lowered ? nullptr : &reason);
}

void Lowering::add_report(jit::Node* node, const std::string* reason) {
  report_.push_back({module_path(node), node->kind().toQualString(), reason == nullptr,
                     reason ? *reason : "", weight_bytes_, count_macs(node)});
}

std::optional<size_t> Lowering::island_of(const jit::Node* node) const {
  const auto found = lowered_.find(node);
  return found == lowered_.end() ? std::nullopt : std::optional(found->second);
}

void Lowering::add_output(size_t island_index, jit::Value* value) {
  Island& island = islands_[island_index];
  if (std::find(island.outputs.begin(), island.outputs.end(), value) != island.outputs.end()) {
    return;
  }
  island.outputs.push_back(value);
  int64_t output = island.values.at(value);
  if (island.graph.values[static_cast<size_t>(output)].quantized()) {
    const int64_t codes = output;
    output = island.graph.add_value(std::nullopt);
    island.graph.nodes.push_back(
        {.op = "dequantize", .name = value->debugName(), .inputs = {codes}, .output = output});
  }
  island.graph.outputs.push_back(output);
}

void Lowering::finish() {
  for (Island& island : islands_) {
    engine::eliminate_dead_nodes(island.graph);
    engine::sink_moves(island.graph);
    engine::fuse_scores(island.graph);
    engine::fuse(island.graph);
    engine::fuse_moves(island.graph);
    engine::fold_tables(island.graph);
    engine::compact_values(island.graph);
    island.values.clear();  // numbers have changed
    island.masks.clear();
  }
}

std::optional<std::vector<int64_t>> Lowering::ints(const jit::Value* value) {
  const auto constant = constants_.get(value);
  if (!constant) return std::nullopt;
  if (constant->isBool()) return std::vector<int64_t>{constant->toBool()};
  if (constant->isInt()) return std::vector<int64_t>{constant->toInt()};
  if (constant->isIntList()) return constant->toIntVector();
  return std::nullopt;
}

std::optional<kernels::QParams> Lowering::codes(const jit::Value* value) const {
  const auto found = codes_.find(value);
  return found == codes_.end() ? std::nullopt : std::optional(found->second);
}

std::optional<int64_t> Lowering::own_float(const jit::Value* value) const {
  const Island& island = islands_[level_];
  const auto found = island.values.find(value);
  if (found == island.values.end() || codes_.contains(value) || value->uses().size() != 1 ||
      !lowered_.contains(value->node())) {
    return std::nullopt;
  }
  return found->second;
}

int64_t Lowering::use_codes(jit::Value* value) {
  Island& island = islands_[level_];
  if (const auto found = island.values.find(value); found != island.values.end()) {
    if (island.graph.values[static_cast<size_t>(found->second)].quantized()) return found->second;
  }
  // Codes of an earlier island arrive as the float values that they stand for; quantizing those
  // gives the codes back, exactly.
  const int64_t input = use_float(value);
  const int64_t quantized = island.graph.add_value(codes_.at(value));
  island.graph.nodes.push_back(
      {.op = "quantize", .name = value->debugName(), .inputs = {input}, .output = quantized});
  island.values[value] = quantized;
  return quantized;
}

int64_t Lowering::use_indices(jit::Value* value) {
  const int64_t input = use_float(value);
  islands_[level_].graph.values[static_cast<size_t>(input)].dtype = at::kLong;
  return input;
}

int64_t Lowering::use_mask(jit::Value* value) {
  if (makes(value)) return use_float(value);
  Island& island = islands_[level_];
  const auto [mask, is_new] = island.masks.try_emplace(value, 0);
  if (!is_new) return mask->second;
  mask->second = island.add_input(value);
  if (has_dtype(value, at::kBool)) {
    island.graph.values[static_cast<size_t>(mask->second)].dtype = at::kBool;
  }
  return mask->second;
}

bool Lowering::makes(const jit::Value* value) const { return island_of(value->node()) == level_; }

int64_t Lowering::use_float(jit::Value* value) {
  Island& island = islands_[level_];
  if (const auto found = island.values.find(value); found != island.values.end()) {
    return found->second;
  }
  return island.values[value] = island.add_input(value);
}

void Lowering::add_node(engine::Node node, jit::Value* output,
                        std::optional<kernels::QParams> qparams) {
  Island& island = islands_[level_];
  const bool quantizes = node.op == "quantize";
  node.output = island.graph.add_value(qparams, quantizes ? module_path(output->node()) : "");
  if (node.name.empty()) node.name = module_path(output->node());
  island.graph.nodes.push_back(std::move(node));
  island.values[output] = island.graph.nodes.back().output;
  if (qparams) codes_[output] = *qparams;
}

void Lowering::alias(jit::Value* output, jit::Value* input) {
  const int64_t number = use_codes(input);
  islands_[level_].values[output] = number;
  codes_[output] = codes_.at(input);
}

}  // namespace qatx::torchscript
