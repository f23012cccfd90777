#include "qatx/convert/rules/sizes.h"

#include <algorithm>

#include "qatx/convert/evaluate.h"

namespace qatx::torchscript {
namespace {

namespace jit = torch::jit;

// As tracing writes x.size(d): aten::Int(prim::NumToTensor(aten::size(x, d))).
const jit::Node* size_node(const jit::Value* value) {
  const jit::Node* node = value->node();
  while (node->kind() == c10::aten::Int || node->kind() == c10::prim::NumToTensor) {
    node = node->input(0)->node();
  }
  return node->kind() == c10::aten::size && node->inputs().size() == 2 ? node : nullptr;
}

using Dimension = std::pair<const jit::Value*, int64_t>;

// The dimension of the first input, or of one before it, that has the size of this one whatever the
// model's inputs are; nullopt where that is not known.
std::optional<Dimension> same_size_before(Lowering& lowering, const Dimension& dimension_of) {
  const auto& [value, d] = dimension_of;
  const jit::Node* node = value->node();
  const std::string_view kind = node->kind().toQualString();
  const jit::Value* input = node->inputs().empty() ? nullptr : node->input(0);
  if (kind == "qatx::fake_quantize" || kind == "qatx::pact" || kind == "aten::contiguous" ||
      kind == "aten::relu" || kind == "aten::dropout") {
    return Dimension{input, d};
  }
  if (kind == "aten::transpose") {
    const auto a = dimension(lowering, node->input(1), input);
    const auto b = dimension(lowering, node->input(2), input);
    if (!a || !b) return std::nullopt;
    return Dimension{input, d == *a ? *b : d == *b ? *a : d};
  }
  if (kind == "aten::view" || kind == "aten::reshape") {
    const jit::Node* list = node->input(1)->node();
    if (list->kind() != c10::prim::ListConstruct) return std::nullopt;
    const jit::Node* size = size_node(list->input(static_cast<size_t>(d)));
    const auto of = size ? dimension(lowering, size->input(1), size->input(0)) : std::nullopt;
    return of ? std::optional(Dimension{size->input(0), *of}) : std::nullopt;
  }
  if (kind == "aten::cat") {
    const jit::Node* list = input->node();
    if (list->kind() != c10::prim::ListConstruct || list->inputs().empty()) return std::nullopt;
    const auto dim = dimension(lowering, node->input(1), list->input(0));
    return dim && *dim != d ? std::optional(Dimension{list->input(0), d}) : std::nullopt;
  }
  return std::nullopt;
}

Dimension origin(Lowering& lowering, Dimension dimension_of) {
  while (const auto before = same_size_before(lowering, dimension_of)) dimension_of = *before;
  return dimension_of;
}

std::optional<c10::IValue> fixed_value(Lowering& lowering, const jit::Value* value) {
  if (auto constant = lowering.constant(value)) return constant;
  const jit::Node* node = value->node();
  if (node->kind() == c10::aten::size) {
    const auto* sizes = lowering.sizes(node->input(0));
    const auto d = node->inputs().size() == 2 ? dimension(lowering, node->input(1), node->input(0))
                                              : std::nullopt;
    if (!sizes || sizes->size() < 3 || d != 1) return std::nullopt;
    return c10::IValue((*sizes)[1]);
  }
  // Tensors are only met where tracing made them of numbers.
  const bool number = node->kind() == c10::prim::NumToTensor || node->kind() == c10::aten::Int ||
                      node->kind() == c10::aten::floor_divide || node->kind() == c10::aten::mul ||
                      node->kind() == c10::aten::add || node->kind() == c10::aten::sub ||
                      node->kind() == c10::aten::floordiv || node->kind() == c10::aten::div;
  if (!number) return std::nullopt;
  std::vector<c10::IValue> inputs;
  for (const jit::Value* input : node->inputs()) {
    auto known = fixed_value(lowering, input);
    if (!known) return std::nullopt;
    inputs.push_back(std::move(*known));
  }
  const auto outputs = evaluate(node, std::move(inputs));
  return outputs ? std::optional(outputs->at(value->offset())) : std::nullopt;
}

}  // namespace

std::optional<int64_t> fixed_number(Lowering& lowering, const jit::Value* value) {
  const auto known = fixed_value(lowering, value);
  return known && known->isInt() ? std::optional(known->toInt()) : std::nullopt;
}

std::optional<int64_t> size_of(Lowering& lowering, const jit::Value* value, const jit::Value* x) {
  const jit::Node* node = size_node(value);
  const auto* sizes = lowering.sizes(x);
  const auto of = node ? dimension(lowering, node->input(1), node->input(0)) : std::nullopt;
  if (!of || !sizes) return std::nullopt;
  if (node->input(0) == x) return of;
  const Dimension wanted = origin(lowering, {node->input(0), *of});
  for (int64_t d = 0; d < static_cast<int64_t>(sizes->size()); ++d) {
    if (origin(lowering, {x, d}) == wanted) return d;
  }
  return std::nullopt;
}

std::optional<int64_t> dimension(Lowering& lowering, const jit::Value* value, const jit::Value* x) {
  const auto numbers = lowering.ints(value);
  const auto* sizes = lowering.sizes(x);
  if (!numbers || numbers->size() != 1 || !sizes) return std::nullopt;
  const auto dimensions = static_cast<int64_t>(sizes->size());
  const int64_t d = (*numbers)[0] + ((*numbers)[0] < 0 ? dimensions : 0);
  return d >= 0 && d < dimensions ? std::optional(d) : std::nullopt;
}

std::vector<int64_t> kept_sizes(size_t dimensions) {
  std::vector<int64_t> sizes(dimensions);
  for (size_t d = 0; d < dimensions; ++d) sizes[d] = -2 - static_cast<int64_t>(d);
  return sizes;
}

int64_t add_inner(Lowering& lowering, engine::Node node, std::optional<kernels::QParams> qparams) {
  const int64_t value = lowering.graph().add_value(qparams);
  node.output = value;
  lowering.graph().nodes.push_back(std::move(node));
  return value;
}

bool can_move(Lowering& lowering, const jit::Value* value) {
  if (lowering.codes(value)) return true;
  if (!lowering.own_float(value)) return false;
  const auto& uses = value->uses()[0].user->output()->uses();
  return std::none_of(uses.begin(), uses.end(),
                      [](const jit::Use& use) { return use.user->kind() == c10::prim::Return; });
}

std::string add_moves(Lowering& lowering, jit::Value* input, jit::Value* output,
                      std::vector<int64_t> steps) {
  const auto codes = lowering.codes(input);
  engine::Node move{.op = "move", .ints = {{"steps", std::move(steps)}}};
  move.inputs = {codes ? lowering.use_codes(input) : lowering.own_float(input).value()};
  lowering.add_node(std::move(move), output, codes);
  return "";
}

}  // namespace qatx::torchscript
