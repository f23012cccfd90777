#include <algorithm>

#include "qatx/convert/rules/arguments.h"
#include "qatx/convert/rules/rules.h"

namespace qatx::torchscript {
namespace {

namespace jit = torch::jit;

std::string check_input(Lowering& lowering, const jit::Node* node) {
  if (!lowering.codes(node->input(0))) return "input is not fake-quantized";
  if (!has_dimensions(lowering, node->input(0), 4)) return "input has not 4 dimensions";
  return "";
}

// kernel, stride (empty: the kernel) and padding stand at inputs 1, 2 and 3 of both window
// poolings.
bool read_window(Lowering& lowering, const jit::Node* node, engine::Node& pool) {
  const auto kernel = pair(lowering, node->input(1));
  const auto stride_list = lowering.ints(node->input(2));
  const auto stride = stride_list && stride_list->empty() ? kernel : pair(lowering, node->input(2));
  const auto padding = pair(lowering, node->input(3));
  if (!kernel || !stride || !padding) return false;
  pool.ints = {{"kernel", *kernel},
               {"stride", *stride},
               {"padding", {(*padding)[0], (*padding)[1], (*padding)[0], (*padding)[1]}}};
  return true;
}

}  // namespace

std::string lower_max_pool2d(Lowering& lowering, jit::Node* node) {
  if (auto reason = check_input(lowering, node); !reason.empty()) return reason;
  engine::Node pool{.op = "max_pool2d"};
  const auto dilation = pair(lowering, node->input(4));
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

std::string lower_avg_pool2d(Lowering& lowering, jit::Node* node) {
  if (auto reason = check_input(lowering, node); !reason.empty()) return reason;
  engine::Node pool{.op = "avg_pool2d"};
  const auto ceil_mode = lowering.constant(node->input(4));
  const auto count_include_pad = lowering.constant(node->input(5));
  const auto divisor = lowering.constant(node->input(6));
  if (!read_window(lowering, node, pool) || !ceil_mode || !count_include_pad || !divisor) {
    return "its window depends on the input";
  }
  if (divisor->isInt() && divisor->toInt() <= 0) return "divisor_override is not positive";
  pool.ints["dilation"] = {1, 1};
  pool.ints["ceil_mode"] = {ceil_mode->toBool() ? 1 : 0};
  pool.ints["count_include_pad"] = {count_include_pad->toBool() ? 1 : 0};
  pool.ints["divisor_override"] = {divisor->isInt() ? divisor->toInt() : 0};
  pool.inputs = {lowering.use_codes(node->input(0))};
  lowering.add_node(std::move(pool), node->output(), std::nullopt);
  return "";
}

std::string lower_adaptive_avg_pool2d(Lowering& lowering, jit::Node* node) {
  if (auto reason = check_input(lowering, node); !reason.empty()) return reason;
  const auto size = pair(lowering, node->input(1));
  if (!size) return "its output size depends on the input";
  engine::Node pool{.op = "avg_pool2d"};
  pool.ints = {{"adaptive", *size}};
  pool.inputs = {lowering.use_codes(node->input(0))};
  lowering.add_node(std::move(pool), node->output(), std::nullopt);
  return "";
}

std::string lower_mean(Lowering& lowering, jit::Node* node) {
  if (auto reason = check_input(lowering, node); !reason.empty()) return reason;
  if (node->inputs().size() != 4) return "is not over both spatial dimensions";
  auto dims = lowering.ints(node->input(1));
  const auto keepdim = lowering.constant(node->input(2));
  const auto dtype = lowering.constant(node->input(3));
  if (!dims || !keepdim || !dtype || !dtype->isNone()) return "its settings depend on the input";
  for (int64_t& dim : *dims) dim += dim < 0 ? 4 : 0;
  std::sort(dims->begin(), dims->end());
  if (*dims != std::vector<int64_t>{2, 3}) return "is not over both spatial dimensions";
  engine::Node pool{.op = "avg_pool2d"};
  pool.ints = {{"adaptive", {1, 1}}};
  if (!keepdim->toBool()) pool.ints["squeeze"] = {1};
  pool.inputs = {lowering.use_codes(node->input(0))};
  lowering.add_node(std::move(pool), node->output(), std::nullopt);
  return "";
}

}  // namespace qatx::torchscript
