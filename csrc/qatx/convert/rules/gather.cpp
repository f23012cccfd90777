#include <algorithm>
#include <limits>

#include "qatx/convert/rules/rules.h"
#include "qatx/convert/rules/sizes.h"
#include "qatx/engine/moves.h"

namespace qatx::torchscript {
namespace {

namespace jit = torch::jit;

constexpr int64_t kEnd = std::numeric_limits<int64_t>::max();
const char* const kNoCodes = "input is not fake-quantized";
const char* const kNotConstant = "what it takes depends on the input";

// A node that chooses elements of `input` and keeps its parameters.
std::string add_gather(Lowering& lowering, engine::Node gather, jit::Value* input,
                       jit::Value* output) {
  gather.inputs = {lowering.use_codes(input)};
  lowering.add_node(std::move(gather), output, lowering.codes(input));
  return "";
}

engine::Node slice(int64_t dim, int64_t start, int64_t end, int64_t step = 1) {
  return {.op = "slice", .ints = {{"range", {dim, start, end, step}}}};
}

// One index of a dimension, which is then gone.
void add_select(Lowering& lowering, jit::Value* input, int64_t dim, int64_t index,
                jit::Value* output) {
  engine::Node one = slice(dim, index, index == -1 ? kEnd : index + 1);
  one.inputs = {lowering.use_codes(input)};
  std::vector<int64_t> kept;
  for (int64_t d = 0; d < static_cast<int64_t>(lowering.sizes(input)->size()); ++d) {
    if (d != dim) kept.push_back(-2 - d);
  }
  engine::Node move{.op = "move"};
  engine::add_move(move.ints["steps"], engine::MoveKind::reshape, kept);
  move.inputs = {add_inner(lowering, std::move(one), lowering.codes(input))};
  lowering.add_node(std::move(move), output, lowering.codes(input));
}

// Whether a list of parts is only taken apart, which is where the parts are made.
bool is_only_unpacked(const jit::Node* node) {
  const auto& uses = node->output()->uses();
  return std::all_of(uses.begin(), uses.end(),
                     [](const jit::Use& use) { return use.user->kind() == c10::prim::ListUnpack; });
}

const char* const kListIsUsed = "its list is not only taken apart";

bool is_none(Lowering& lowering, const jit::Value* value) {
  const auto constant = lowering.constant(value);
  return constant && constant->isNone();
}

// The sizes of a list of tensors' parts: one number stands for all.
std::optional<std::vector<int64_t>> part_sizes(Lowering& lowering, const jit::Value* value) {
  if (const auto numbers = lowering.ints(value)) return numbers;
  if (const auto number = fixed_number(lowering, value)) return std::vector<int64_t>{*number};
  if (value->node()->kind() != c10::prim::ListConstruct) return std::nullopt;
  std::vector<int64_t> sizes;
  for (const jit::Value* element : value->node()->inputs()) {
    const auto number = fixed_number(lowering, element);
    if (!number) return std::nullopt;
    sizes.push_back(*number);
  }
  return sizes;
}

}  // namespace

std::string lower_slice(Lowering& lowering, jit::Node* node) {
  jit::Value* input = node->input(0);
  if (!lowering.codes(input)) return kNoCodes;
  const auto dim = dimension(lowering, node->input(1), input);
  const auto bound = [&](size_t i, int64_t none) {
    return is_none(lowering, node->input(i)) ? none : fixed_number(lowering, node->input(i));
  };
  const auto start = bound(2, 0);
  const auto end = bound(3, kEnd);
  const auto step = bound(4, 1);
  if (!dim || !start || !end || !step || *start < -kEnd) return kNotConstant;
  if (*start == 0 && *end == kEnd && *step == 1) {
    lowering.alias(node->output(), input);
    return "";
  }
  return add_gather(lowering, slice(*dim, *start, *end, *step), input, node->output());
}

std::string lower_narrow(Lowering& lowering, jit::Node* node) {
  jit::Value* input = node->input(0);
  if (!lowering.codes(input)) return kNoCodes;
  const auto dim = dimension(lowering, node->input(1), input);
  const auto start = fixed_number(lowering, node->input(2));
  const auto length = fixed_number(lowering, node->input(3));
  if (!dim || !start || !length) return kNotConstant;
  const int64_t end = *start < 0 && *start + *length == 0 ? kEnd : *start + *length;
  return add_gather(lowering, slice(*dim, *start, end), input, node->output());
}

std::string lower_select(Lowering& lowering, jit::Node* node) {
  jit::Value* input = node->input(0);
  if (!lowering.codes(input)) return kNoCodes;
  const auto dim = dimension(lowering, node->input(1), input);
  const auto index = fixed_number(lowering, node->input(2));
  if (!dim || !index) return kNotConstant;
  add_select(lowering, input, *dim, *index, node->output());
  return "";
}

std::string lower_split(Lowering& lowering, jit::Node* node) {
  if (!lowering.codes(node->input(0))) return kNoCodes;
  if (!dimension(lowering, node->input(2), node->input(0)) ||
      !part_sizes(lowering, node->input(1))) {
    return kNotConstant;
  }
  return is_only_unpacked(node) ? "" : kListIsUsed;
}

std::string lower_unbind(Lowering& lowering, jit::Node* node) {
  if (!lowering.codes(node->input(0))) return kNoCodes;
  if (!dimension(lowering, node->input(1), node->input(0))) return kNotConstant;
  return is_only_unpacked(node) ? "" : kListIsUsed;
}

std::string lower_list_unpack(Lowering& lowering, jit::Node* node) {
  const jit::Node* list = node->input(0)->node();
  const std::string_view kind = list->kind().toQualString();
  const bool chunks = kind == "aten::chunk";
  const bool single = kind == "aten::unbind";
  if (!chunks && !single && kind != "aten::split" && kind != "aten::split_with_sizes") {
    return "has no integer form";
  }
  if (!lowering.island_of(list)) return kNoCodes;
  jit::Value* input = const_cast<jit::Node*>(list)->input(0);
  const auto dim = dimension(lowering, list->input(single ? 1 : 2), input).value();
  const auto sizes =
      single ? std::vector<int64_t>{1} : part_sizes(lowering, list->input(1)).value();
  int64_t start = 0;
  for (size_t i = 0; i < node->outputs().size(); ++i) {
    const auto index = static_cast<int64_t>(i);
    const int64_t size = sizes[std::min(i, sizes.size() - 1)];
    if (single) {
      add_select(lowering, input, dim, index, node->output(i));
    } else {
      engine::Node part = chunks
                              ? engine::Node{.op = "slice", .ints = {{"chunk", {dim, index, size}}}}
                              : slice(dim, start, start + size);
      add_gather(lowering, std::move(part), input, node->output(i));
    }
    start += size;
  }
  return "";
}

std::string lower_pad(Lowering& lowering, jit::Node* node) {
  jit::Value* input = node->input(0);
  if (!lowering.codes(input)) return kNoCodes;
  const std::string_view kind = node->kind().toQualString();
  const auto pads = lowering.ints(node->input(1));
  if (!pads) return kNotConstant;
  std::string mode = "constant";
  if (kind.find("reflection") != std::string_view::npos) mode = "reflect";
  if (kind.find("replication") != std::string_view::npos) mode = "replicate";
  size_t value_input = 2;
  if (kind == "aten::pad") {
    const auto given = lowering.constant(node->input(2));
    if (!given || !given->isString()) return kNotConstant;
    mode = given->toStringRef();
    value_input = 3;
  }
  if (mode == "constant") {
    const auto value = lowering.constant(node->input(value_input));
    const bool zero =
        value && (value->isNone() || (value->isScalar() && value->toScalar().toDouble() == 0.0));
    if (!zero) return "pads with something else than 0";
  }
  constexpr std::string_view kModes[] = {"constant", "reflect", "replicate", "circular"};
  const auto found = std::find(std::begin(kModes), std::end(kModes), mode);
  if (found == std::end(kModes)) return "mode is not known";
  engine::Node pad{.op = "pad", .ints = {{"pads", *pads}, {"mode", {found - std::begin(kModes)}}}};
  return add_gather(lowering, std::move(pad), input, node->output());
}

namespace {

// An upsampling's output size or factors, at inputs `size` and `scales`; factors that stand one by
// one only say again what the size does.
std::string read_resize(Lowering& lowering, const jit::Node* node, size_t size, size_t scales,
                        engine::Node& resize) {
  if (!lowering.sizes(node->input(0))) return "its dimensions are not known";
  if (const auto sizes = lowering.ints(node->input(size))) {
    for (size_t i = scales; i < node->inputs().size(); ++i) {
      if (!is_none(lowering, node->input(i))) return "has a size and a factor";
    }
    resize.ints["size"] = *sizes;
    return "";
  }
  const auto factors = lowering.constant(node->input(scales));
  if (!is_none(lowering, node->input(size)) || !factors || !factors->isDoubleList()) {
    return "its output size depends on the input";
  }
  resize.floats["scale"] = factors->toDoubleVector();
  return "";
}

}  // namespace

std::string lower_upsample_nearest(Lowering& lowering, jit::Node* node) {
  if (!lowering.codes(node->input(0))) return kNoCodes;
  const std::string_view kind = node->kind().toQualString();
  engine::Node upsample{.op = "upsample_nearest"};
  if (auto reason = read_resize(lowering, node, 1, 2, upsample); !reason.empty()) return reason;
  upsample.ints["exact"] = {kind.find("exact") != std::string_view::npos};
  return add_gather(lowering, std::move(upsample), node->input(0), node->output());
}

std::string lower_upsample_bilinear(Lowering& lowering, jit::Node* node) {
  if (!lowering.codes(node->input(0))) return kNoCodes;
  engine::Node upsample{.op = "upsample_bilinear"};
  if (auto reason = read_resize(lowering, node, 1, 3, upsample); !reason.empty()) return reason;
  const auto aligned = lowering.ints(node->input(2));
  if (!aligned) return kNotConstant;
  upsample.ints["align_corners"] = *aligned;
  upsample.inputs = {lowering.use_codes(node->input(0))};
  lowering.add_node(std::move(upsample), node->output(), std::nullopt);
  return "";
}

}  // namespace qatx::torchscript
