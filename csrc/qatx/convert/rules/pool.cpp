#include <algorithm>
#include <numeric>
#include <string_view>

#include "qatx/convert/rules/arguments.h"
#include "qatx/convert/rules/rules.h"
#include "qatx/convert/rules/sizes.h"
#include "qatx/engine/moves.h"

namespace qatx::torchscript {
namespace {

namespace jit = torch::jit;

// How many spatial dimensions a pooling has, by its name.
size_t spatial_dimensions(const jit::Node* node) {
  return std::string_view(node->kind().toQualString()).ends_with("3d") ? 3 : 2;
}

std::string check_input(Lowering& lowering, const jit::Node* node) {
  if (!lowering.codes(node->input(0))) return "input is not fake-quantized";
  const size_t dimensions = spatial_dimensions(node) + 2;
  if (!has_dimensions(lowering, node->input(0), dimensions)) {
    return "input has not " + std::to_string(dimensions) + " dimensions";
  }
  return "";
}

// The operator of this family for so many dimensions.
std::string operator_name(const char* family, const jit::Node* node) {
  return family + std::to_string(spatial_dimensions(node)) + "d";
}

// Sizes without some dimensions, which are sorted, for engine::MoveKind::reshape.
std::vector<int64_t> sizes_without(const std::vector<int64_t>& dims, int64_t dimensions) {
  std::vector<int64_t> kept;
  for (int64_t d = 0; d < dimensions; ++d) {
    if (!std::binary_search(dims.begin(), dims.end(), d)) kept.push_back(-2 - d);
  }
  return kept;
}

// kernel, stride (empty: the kernel) and padding stand at inputs 1, 2 and 3 of both window
// poolings.
bool read_window(Lowering& lowering, const jit::Node* node, engine::Node& pool) {
  const size_t count = spatial_dimensions(node);
  const auto kernel = numbers(lowering, node->input(1), count);
  const auto stride_list = lowering.ints(node->input(2));
  const auto stride =
      stride_list && stride_list->empty() ? kernel : numbers(lowering, node->input(2), count);
  auto padding = numbers(lowering, node->input(3), count);
  if (!kernel || !stride || !padding) return false;
  for (size_t d = 0; d < count; ++d) padding->push_back((*padding)[d]);  // the same on both sides
  pool.ints = {{"kernel", *kernel}, {"stride", *stride}, {"padding", *padding}};
  return true;
}

}  // namespace

std::string lower_max_pool(Lowering& lowering, jit::Node* node) {
  if (auto reason = check_input(lowering, node); !reason.empty()) return reason;
  engine::Node pool{.op = operator_name("max_pool", node)};
  const auto dilation = numbers(lowering, node->input(4), spatial_dimensions(node));
  const auto ceil_mode = lowering.constant(node->input(5));
  if (!read_window(lowering, node, pool) || !dilation || !ceil_mode) {
    return "its window depends on the input";
  }
  pool.ints["dilation"] = *dilation;
  pool.ints["ceil_mode"] = {ceil_mode->toBool() ? 1 : 0};
  pool.inputs = {lowering.use_codes(node->input(0))};
  lowering.add_node(std::move(pool), node->output(), lowering.codes(node->input(0)));
  return "";
}

std::string lower_avg_pool(Lowering& lowering, jit::Node* node) {
  if (auto reason = check_input(lowering, node); !reason.empty()) return reason;
  engine::Node pool{.op = operator_name("avg_pool", node)};
  const auto ceil_mode = lowering.constant(node->input(4));
  const auto count_include_pad = lowering.constant(node->input(5));
  const auto divisor = lowering.constant(node->input(6));
  if (!read_window(lowering, node, pool) || !ceil_mode || !count_include_pad || !divisor) {
    return "its window depends on the input";
  }
  if (divisor->isInt() && divisor->toInt() <= 0) return "divisor_override is not positive";
  pool.ints["dilation"].assign(spatial_dimensions(node), 1);
  pool.ints["ceil_mode"] = {ceil_mode->toBool() ? 1 : 0};
  pool.ints["count_include_pad"] = {count_include_pad->toBool() ? 1 : 0};
  pool.ints["divisor_override"] = {divisor->isInt() ? divisor->toInt() : 0};
  pool.inputs = {lowering.use_codes(node->input(0))};
  lowering.add_node(std::move(pool), node->output(), std::nullopt);
  return "";
}

std::string lower_adaptive_avg_pool(Lowering& lowering, jit::Node* node) {
  if (auto reason = check_input(lowering, node); !reason.empty()) return reason;
  const auto size = numbers(lowering, node->input(1), spatial_dimensions(node));
  if (!size) return "its output size depends on the input";
  engine::Node pool{.op = operator_name("avg_pool", node)};
  pool.ints = {{"adaptive", *size}};
  pool.inputs = {lowering.use_codes(node->input(0))};
  lowering.add_node(std::move(pool), node->output(), std::nullopt);
  return "";
}

std::string lower_mean(Lowering& lowering, jit::Node* node) {
  jit::Value* input = node->input(0);
  if (!lowering.codes(input)) return "input is not fake-quantized";
  const auto* sizes = lowering.sizes(input);
  const bool all = node->inputs().size() == 2;
  std::optional<std::vector<int64_t>> dims = std::vector<int64_t>{};
  std::optional<c10::IValue> keepdim(false);
  if (!all) {
    dims = lowering.ints(node->input(1));
    keepdim = lowering.constant(node->input(2));
  }
  const auto dtype = lowering.constant(node->input(all ? 1 : 3));
  if (!sizes || !dims || !keepdim || !dtype || !dtype->isNone()) {
    return "its settings depend on the input";
  }
  const auto dimensions = static_cast<int64_t>(sizes->size());
  for (int64_t& dim : *dims) dim += dim < 0 ? dimensions : 0;
  if (dims->empty()) {  // over all of them
    dims->resize(sizes->size());
    std::iota(dims->begin(), dims->end(), int64_t{0});
  }
  std::sort(dims->begin(), dims->end());
  if (dims->empty()) return "its input has no dimensions";
  engine::Node mean{.op = "mean", .ints = {{"dims", *dims}}};
  const bool image = dimensions == 4 && *dims == std::vector<int64_t>{2, 3};
  if (image) {
    mean = {.op = "avg_pool2d", .ints = {{"adaptive", {1, 1}}}};
    if (!keepdim->toBool()) mean.ints["squeeze"] = {1};
  }
  mean.inputs = {lowering.use_codes(input)};
  if (image || keepdim->toBool()) {
    lowering.add_node(std::move(mean), node->output(), std::nullopt);
    return "";
  }
  engine::Node move{.op = "move"};
  engine::add_move(move.ints["steps"], engine::MoveKind::reshape, sizes_without(*dims, dimensions));
  move.inputs = {add_inner(lowering, std::move(mean), std::nullopt)};
  lowering.add_node(std::move(move), node->output(), std::nullopt);
  return "";
}

// Poolings along one dimension are those of images of height 1.
namespace {

std::string lower_as_image(Lowering& lowering, jit::Node* node, engine::Node pool, bool codes) {
  const auto qparams = lowering.codes(node->input(0));
  engine::Node raise{.op = "move", .inputs = {lowering.use_codes(node->input(0))}};
  engine::add_move(raise.ints["steps"], engine::MoveKind::reshape, {-2, -3, 1, -4});
  pool.inputs = {add_inner(lowering, std::move(raise), qparams)};
  engine::Node lower{.op = "move"};
  engine::add_move(lower.ints["steps"], engine::MoveKind::reshape, {-2, -3, -5});
  const auto made = codes ? qparams : std::nullopt;
  lower.inputs = {add_inner(lowering, std::move(pool), made)};
  lowering.add_node(std::move(lower), node->output(), made);
  return "";
}

std::string check_line(Lowering& lowering, const jit::Node* node) {
  if (!lowering.codes(node->input(0))) return "input is not fake-quantized";
  if (!has_dimensions(lowering, node->input(0), 3)) return "input has not 3 dimensions";
  return "";
}

std::optional<std::vector<int64_t>> fixed_numbers(Lowering& lowering, const jit::Value* value) {
  if (const auto numbers = lowering.ints(value)) return numbers;
  if (value->node()->kind() != c10::prim::ListConstruct) return std::nullopt;
  std::vector<int64_t> numbers;
  for (const jit::Value* element : value->node()->inputs()) {
    const auto number = fixed_number(lowering, element);
    if (!number) return std::nullopt;
    numbers.push_back(*number);
  }
  return numbers;
}

// kernel, stride (empty: the kernel) and padding stand at inputs 1, 2 and 3.
bool read_line_window(Lowering& lowering, const jit::Node* node, engine::Node& pool) {
  const auto kernel = fixed_numbers(lowering, node->input(1));
  auto stride = fixed_numbers(lowering, node->input(2));
  const auto padding = lowering.ints(node->input(3));
  if (stride && stride->empty()) stride = kernel;
  if (!kernel || !stride || !padding || kernel->size() != 1) return false;
  pool.ints = {{"kernel", {1, (*kernel)[0]}},
               {"stride", {1, (*stride)[0]}},
               {"padding", {0, (*padding)[0], 0, (*padding)[0]}}};
  return true;
}

}  // namespace

std::string lower_max_pool1d(Lowering& lowering, jit::Node* node) {
  if (auto reason = check_line(lowering, node); !reason.empty()) return reason;
  engine::Node pool{.op = "max_pool2d"};
  const auto dilation = lowering.ints(node->input(4));
  const auto ceil_mode = lowering.ints(node->input(5));
  const jit::Value* kernel = node->input(1);
  const bool list = kernel->node()->kind() == c10::prim::ListConstruct;
  if (list && kernel->node()->inputs().size() == 1 &&
      size_of(lowering, kernel->node()->input(0), node->input(0)) == 2) {
    pool.ints = {{"adaptive", {1, 1}}};  // the greatest of all, however many there are
    return lower_as_image(lowering, node, std::move(pool), true);
  }
  if (!read_line_window(lowering, node, pool) || !dilation || !ceil_mode) {
    return "its window depends on the input";
  }
  pool.ints["dilation"] = {1, (*dilation)[0]};
  pool.ints["ceil_mode"] = *ceil_mode;
  return lower_as_image(lowering, node, std::move(pool), true);
}

std::string lower_avg_pool1d(Lowering& lowering, jit::Node* node) {
  if (auto reason = check_line(lowering, node); !reason.empty()) return reason;
  engine::Node pool{.op = "avg_pool2d"};
  const auto ceil_mode = lowering.ints(node->input(4));
  const auto count_include_pad = lowering.ints(node->input(5));
  if (!read_line_window(lowering, node, pool) || !ceil_mode || !count_include_pad) {
    return "its window depends on the input";
  }
  pool.ints["dilation"] = {1, 1};
  pool.ints["ceil_mode"] = *ceil_mode;
  pool.ints["count_include_pad"] = *count_include_pad;
  pool.ints["divisor_override"] = {0};
  return lower_as_image(lowering, node, std::move(pool), false);
}

std::string lower_adaptive_pool1d(Lowering& lowering, jit::Node* node) {
  if (auto reason = check_line(lowering, node); !reason.empty()) return reason;
  const auto size = lowering.ints(node->input(1));
  if (!size || size->size() != 1) return "its output size depends on the input";
  engine::Node pool{.op = "avg_pool2d", .ints = {{"adaptive", {1, (*size)[0]}}}};
  return lower_as_image(lowering, node, std::move(pool), false);
}

// The greatest values along dimensions.
std::string lower_amax(Lowering& lowering, jit::Node* node) {
  jit::Value* input = node->input(0);
  if (node->inputs().size() != 3) return "is not along dimensions";  // aten::max of all, or of two
  if (!lowering.codes(input)) return "input is not fake-quantized";
  const auto* sizes = lowering.sizes(input);
  auto dims = lowering.ints(node->input(1));
  const auto keepdim = lowering.ints(node->input(2));
  if (!sizes || !dims || !keepdim) return "its settings depend on the input";
  if (node->outputs().size() == 2 && !node->outputs()[1]->uses().empty()) {
    return "the places of the greatest values are used";
  }
  if (dims->empty() || sizes->empty()) return "is not along dimensions";
  for (int64_t& dim : *dims) dim += dim < 0 ? static_cast<int64_t>(sizes->size()) : 0;
  std::sort(dims->begin(), dims->end());
  const auto qparams = lowering.codes(input);
  engine::Node amax{.op = "amax", .ints = {{"dims", *dims}}};
  amax.inputs = {lowering.use_codes(input)};
  jit::Value* output = node->outputs()[0];
  if ((*keepdim)[0] != 0) {
    lowering.add_node(std::move(amax), output, qparams);
    return "";
  }
  engine::Node move{.op = "move"};
  engine::add_move(move.ints["steps"], engine::MoveKind::reshape,
                   sizes_without(*dims, static_cast<int64_t>(sizes->size())));
  move.inputs = {add_inner(lowering, std::move(amax), qparams)};
  lowering.add_node(std::move(move), output, qparams);
  return "";
}

}  // namespace qatx::torchscript
