#include <ATen/TensorOperators.h>

#include <string_view>

#include "qatx/convert/rules/layer.h"
#include "qatx/convert/rules/rules.h"
#include "qatx/engine/codebook.h"

namespace qatx::torchscript {
namespace {

namespace jit = torch::jit;

// Reads the table: codes less their zero point, moved up by 128.
std::string read_table(Lowering& lowering, const jit::Value* value, engine::Node& node) {
  WeightCodes weights;
  if (auto reason = read_weight(lowering, value, 2, weights); !reason.empty()) return reason;
  node.tensors = {{"weight", (weights.codes.to(at::kShort) + 128).to(at::kByte)},
                  {"weight_scale", weights.scale}};
  lowering.set_weight_bytes(engine::encode_bytes(weights.codes).data.numel());
  return "";
}

bool is_true(Lowering& lowering, const jit::Value* value) {
  const auto constant = lowering.constant(value);
  return !constant || (constant->isBool() && constant->toBool());
}

}  // namespace

std::string lower_embedding(Lowering& lowering, jit::Node* node) {
  jit::Value* indices = node->input(1);
  if (!lowering.has_dtype(indices, at::kLong)) return "its indices are not int64";
  const auto* sizes = lowering.sizes(indices);
  if (sizes->size() == 3 || sizes->size() == 4) return "its indices have 3 or 4 dimensions";
  engine::Node embedding{.op = "embedding", .ints = {{"bags", {0}}}};
  if (auto reason = read_table(lowering, node->input(0), embedding); !reason.empty()) return reason;
  embedding.inputs = {lowering.use_indices(indices)};
  lowering.add_node(std::move(embedding), node->output(), std::nullopt);
  return "";
}

std::string lower_embedding_bag(Lowering& lowering, jit::Node* node) {
  jit::Value* indices = node->input(1);
  jit::Value* offsets = node->input(2);
  if (!lowering.has_dtype(indices, at::kLong) || !lowering.has_dtype(offsets, at::kLong)) {
    return "its indices or offsets are not int64";
  }
  for (size_t i = 1; i < node->outputs().size(); ++i) {
    if (!node->output(i)->uses().empty()) return "more than its result is used";
  }
  const auto mode = lowering.ints(node->input(4));
  if (!mode || (*mode)[0] > 1) return "its mode is neither sum nor mean";
  const auto weights = lowering.constant(node->input(6));
  if (!weights || !weights->isNone()) return "it has a weight for each index";
  if (node->inputs().size() > 7 && is_true(lowering, node->input(7))) {
    return "its offsets include the last one";
  }
  if (node->inputs().size() > 8) {
    const auto padding = lowering.constant(node->input(8));
    if (!padding || (padding->isInt() && padding->toInt() >= 0)) return "it leaves an index out";
  }
  engine::Node embedding{.op = "embedding", .ints = {{"bags", {(*mode)[0] + 1}}}};
  if (auto reason = read_table(lowering, node->input(0), embedding); !reason.empty()) return reason;
  embedding.inputs = {lowering.use_indices(indices), lowering.use_indices(offsets)};
  lowering.add_node(std::move(embedding), node->output(0), std::nullopt);
  return "";
}

}  // namespace qatx::torchscript
