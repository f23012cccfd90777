#include <ATen/ops/zeros_like.h>

#include "qatx/convert/rules/rules.h"
#include "qatx/convert/rules/table.h"
#include "qatx/core/qparams.h"
#include "qatx/ops/pact.h"

namespace qatx::torchscript {
namespace {

// Signed codes are shifted up by 128, so that the engine knows unsigned ones only.
void add_quantize(Lowering& lowering, torch::jit::Node* node, const CheckedQParams& in_use,
                  int64_t quant_min, int64_t quant_max) {
  const int64_t shift = quant_min < 0 ? 128 : 0;
  const auto qparams =
      engine::make_qparams(in_use.scale[0], static_cast<int64_t>(in_use.zero_point[0]) + shift,
                           quant_min + shift, quant_max + shift);
  torch::jit::Value* input = node->input(0);
  engine::Node quantize{.op = "quantize"};
  if (const auto before = lowering.codes(input)) {
    if (*before == qparams) {  // quantizing again changes nothing
      lowering.alias(node->output(), input);
      return;
    }
    const int64_t codes = lowering.use_codes(input);
    const int64_t value = lowering.graph().add_value(std::nullopt);
    lowering.graph().nodes.push_back({.op = "table",
                                      .inputs = {codes},
                                      .output = value,
                                      .tensors = {{"values", values_of_codes(*before)}}});
    quantize.inputs = {value};
  } else {
    quantize.inputs = {lowering.use_float(input)};
  }
  lowering.add_node(std::move(quantize), node->output(), qparams);
}

}  // namespace

std::string lower_fake_quantize(Lowering& lowering, torch::jit::Node* node) {
  const auto scale = lowering.constant(node->input(1));
  const auto zero_point = lowering.constant(node->input(2));
  const auto seed = lowering.constant(node->input(9));
  if (!scale || !zero_point) return "scale or zero_point depend on the input";
  if (!seed || !seed->isNone()) return "rounding is stochastic";
  if (scale->toTensor().numel() != 1) return "activations take one scale per tensor";
  if (scale->toTensor().scalar_type() != at::kFloat) return "arithmetic is in float64";
  if (!lowering.ints(node->input(3)) || !lowering.ints(node->input(4))) {
    return "quant_min or quant_max depend on the input";
  }
  const int64_t quant_min = lowering.ints(node->input(3))->at(0);
  const int64_t quant_max = lowering.ints(node->input(4))->at(0);
  add_quantize(lowering, node,
               read_qparams(scale->toTensor(), zero_point->toTensor(), quant_min, quant_max),
               quant_min, quant_max);
  return "";
}

std::string lower_pact(Lowering& lowering, torch::jit::Node* node) {
  const auto alpha = lowering.constant(node->input(1));
  const auto quant_max = lowering.ints(node->input(2));
  if (!alpha || !quant_max) return "alpha or quant_max depend on the input";
  if (alpha->toTensor().numel() != 1) return "activations take one scale per tensor";
  if (alpha->toTensor().scalar_type() != at::kFloat) return "arithmetic is in float64";
  const at::Tensor scale = pact_scale(alpha->toTensor(), quant_max->at(0));
  add_quantize(lowering, node, read_qparams(scale, at::zeros_like(scale), 0, quant_max->at(0)), 0,
               quant_max->at(0));
  return "";
}

}  // namespace qatx::torchscript
