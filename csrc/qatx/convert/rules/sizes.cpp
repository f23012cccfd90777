#include "qatx/convert/rules/sizes.h"

#include <algorithm>

#include "qatx/convert/evaluate.h"
#include "qatx/convert/rules/rules.h"

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

Dimension origin(Lowering& lowering, const Dimension& dimension_of);

// Of the elements of a list that a node makes out of one tensor.
std::optional<Dimension> same_size_in_parts(Lowering& lowering, const jit::Value* list, int64_t d) {
  const jit::Node* node = list->node();
  const std::string_view kind = node->kind().toQualString();
  const bool unbinds = kind == "aten::unbind";
  const bool splits =
      kind == "aten::chunk" || kind == "aten::split" || kind == "aten::split_with_sizes";
  if (!unbinds && !splits) return std::nullopt;
  const auto dim = dimension(lowering, node->input(unbinds ? 1 : 2), node->input(0));
  if (!dim || (splits && d == *dim)) return std::nullopt;
  return Dimension{node->input(0), unbinds && d >= *dim ? d + 1 : d};
}

// Of what moves elements, by its name; nullopt for other nodes too.
std::optional<Dimension> same_size_before_move(Lowering& lowering, const jit::Node* node,
                                               std::string_view kind, int64_t d) {
  const jit::Value* input = node->input(0);
  const auto* sizes = lowering.sizes(input);
  if (!sizes) return std::nullopt;
  if (kind == "aten::transpose") {
    const auto a = dimension(lowering, node->input(1), input);
    const auto b = dimension(lowering, node->input(2), input);
    if (!a || !b) return std::nullopt;
    return Dimension{input, d == *a ? *b : d == *b ? *a : d};
  }
  if (kind == "aten::permute") {
    const auto order = lowering.ints(node->input(1));
    if (!order) return std::nullopt;
    const int64_t from = order->at(static_cast<size_t>(d));
    return Dimension{input, from + (from < 0 ? static_cast<int64_t>(sizes->size()) : 0)};
  }
  if (kind == "aten::unflatten") {
    const auto dim = dimension(lowering, node->input(1), input);
    const auto parts = lowering.ints(node->input(2));
    if (!dim || !parts) return std::nullopt;
    const int64_t more = static_cast<int64_t>(parts->size()) - 1;
    if (d >= *dim && d <= *dim + more) return std::nullopt;
    return Dimension{input, d < *dim ? d : d - more};
  }
  if (kind == "aten::flatten") {
    const auto first = dimension(lowering, node->input(1), input);
    const auto last = dimension(lowering, node->input(2), input);
    if (!first || !last || d == *first) return std::nullopt;
    return Dimension{input, d < *first ? d : d + *last - *first};
  }
  const bool selects = kind == "aten::select";
  if (selects || kind == "aten::slice") {
    const auto dim = dimension(lowering, node->input(1), input);
    if (!dim || (!selects && d == *dim)) return std::nullopt;
    return Dimension{input, selects && d >= *dim ? d + 1 : d};
  }
  if (kind == "aten::unsqueeze") {
    const auto given = lowering.ints(node->input(1));
    if (!given) return std::nullopt;
    const int64_t dim =
        (*given)[0] + ((*given)[0] < 0 ? static_cast<int64_t>(sizes->size()) + 1 : 0);
    if (d == dim) return std::nullopt;
    return Dimension{input, d < dim ? d : d - 1};
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

// Of a sum, product, ... of two tensors that broadcast: where both have the same size, or only one
// has this dimension.
std::optional<Dimension> same_size_in_pair(Lowering& lowering, const jit::Node* node, int64_t d) {
  const auto* out = lowering.sizes(node->output());
  std::optional<Dimension> found;
  for (size_t i = 0; i < 2; ++i) {
    const jit::Value* input = node->input(i);
    const auto* sizes = lowering.sizes(input);
    if (!sizes) {
      if (!input->type()->isSubtypeOf(*c10::NumberType::get())) return std::nullopt;
      continue;
    }
    const int64_t own = d - static_cast<int64_t>(out->size() - sizes->size());
    if (own < 0) continue;
    const Dimension before = origin(lowering, {input, own});
    if (found && *found != before) return std::nullopt;
    found = before;
  }
  return found;
}

// The dimension of the first input, or of one before it, that has the size of this one whatever the
// model's inputs are; nullopt where that is not known.
std::optional<Dimension> same_size_before(Lowering& lowering, const Dimension& dimension_of) {
  const auto& [value, d] = dimension_of;
  const jit::Node* node = value->node();
  const std::string_view kind = node->kind().toQualString();
  if (node->inputs().empty()) return std::nullopt;
  if (kind == "prim::ListUnpack") return same_size_in_parts(lowering, node->input(0), d);
  const auto* sizes = lowering.sizes(value);
  if (!sizes) return std::nullopt;
  const bool is_last = d + 1 == static_cast<int64_t>(sizes->size());
  const Rule rule = find_rule(kind);
  if (rule == lower_fake_quantize || rule == lower_pact || rule == lower_identity ||
      rule == lower_activation || rule == lower_table || rule == lower_softmax ||
      rule == lower_layer_norm || rule == lower_masked_fill) {
    const auto* before = lowering.sizes(node->input(0));
    const bool alike = before && before->size() == sizes->size();
    return alike ? std::optional(Dimension{node->input(0), d}) : std::nullopt;
  }
  if (rule == lower_where) {  // the scores, of which a mask may leave some dimensions out
    for (size_t i = 1; i < node->inputs().size(); ++i) {
      const auto* before = lowering.sizes(node->input(i));
      if (before && *before == *sizes && !lowering.constant(node->input(i))) {
        return Dimension{node->input(i), d};
      }
    }
    return std::nullopt;
  }
  if (rule == lower_linear) {
    return is_last ? std::nullopt : std::optional(Dimension{node->input(0), d});
  }
  if (rule == lower_embedding) {
    return is_last ? std::nullopt : std::optional(Dimension{node->input(1), d});
  }
  if (rule == lower_convolution || rule == lower_max_pool || rule == lower_avg_pool) {
    return d == 0 ? std::optional(Dimension{node->input(0), d}) : std::nullopt;
  }
  if (rule == lower_matmul) {
    const auto* first = lowering.sizes(node->input(0));
    const auto* second = lowering.sizes(node->input(1));
    const bool alike = first && second && first->size() == second->size();
    return alike ? std::optional(Dimension{node->input(is_last ? 1 : 0), d}) : std::nullopt;
  }
  if (rule == lower_add || rule == lower_sub || rule == lower_mul || rule == lower_div) {
    return same_size_in_pair(lowering, node, d);
  }
  return same_size_before_move(lowering, node, kind, d);
}

Dimension origin(Lowering& lowering, const Dimension& dimension_of) {
  const auto known = lowering.size_origins.find(dimension_of);
  if (known != lowering.size_origins.end()) return known->second;
  const auto before = same_size_before(lowering, dimension_of);
  const Dimension found = before ? origin(lowering, *before) : dimension_of;
  lowering.size_origins[dimension_of] = found;
  return found;
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

void measure_input(Lowering& lowering, jit::Node* size) {
  const auto d = dimension(lowering, size->input(1), size->input(0));
  if (!d) return;
  const auto [value, at] = origin(lowering, {size->input(0), *d});
  if (value == size->input(0) || value->node()->kind() != c10::prim::Param) return;
  jit::Graph& graph = *size->owningGraph();
  const jit::WithInsertPoint before(size);
  size->replaceInput(0, const_cast<jit::Value*>(value));
  size->replaceInput(1, graph.insertConstant(at));
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
