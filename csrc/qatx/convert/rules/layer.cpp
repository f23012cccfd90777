#include "qatx/convert/rules/layer.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <c10/util/Exception.h>

#include <cmath>

#include "qatx/core/qparams.h"
#include "qatx/engine/codebook.h"

namespace qatx::torchscript {
namespace {

namespace jit = torch::jit;

}  // namespace

std::string read_weight(Lowering& lowering, const jit::Value* value, int64_t dim,
                        WeightCodes& result) {
  const jit::Node* node = value->node();
  if (std::string_view(node->kind().toQualString()) != "qatx::fake_quantize") {
    return "weight is not fake-quantized";
  }
  const auto weight = lowering.constant(node->input(0));
  const auto scale = lowering.constant(node->input(1));
  const auto zero_point = lowering.constant(node->input(2));
  const auto axis = lowering.constant(node->input(5));
  const auto group_size = lowering.constant(node->input(7));
  const auto seed = lowering.constant(node->input(9));
  if (!weight || !scale || !zero_point || !axis || !group_size || !seed) {
    return "weight depends on the input";
  }
  if (!group_size->isNone()) return "weight scales are by group";
  if (!seed->isNone()) return "weight is rounded stochastically";
  if (weight->toTensor().scalar_type() != at::kFloat) return "weight is not float32";
  const at::Tensor w = weight->toTensor().contiguous();
  if (w.dim() != dim) return "weight has " + std::to_string(w.dim()) + " dimensions";
  if (w.numel() == 0) return "weight is empty";
  if (!axis->isNone() && axis->toInt() != 0 && axis->toInt() != -dim) {
    return "weight scales are not by output channel";
  }
  if (!lowering.ints(node->input(3)) || !lowering.ints(node->input(4))) {
    return "quant_min or quant_max of the weight depend on the input";
  }
  const auto quant_min = lowering.ints(node->input(3))->at(0);
  const auto quant_max = lowering.ints(node->input(4))->at(0);
  const CheckedQParams qparams =
      read_qparams(scale->toTensor(), zero_point->toTensor(), quant_min, quant_max);
  const int64_t channels = w.size(0);
  const int64_t products = w.numel() / channels;
  result.codes = at::empty(w.sizes(), at::kChar);
  result.scale = at::empty({channels}, at::kFloat);
  const float* in = w.const_data_ptr<float>();
  auto* codes = result.codes.mutable_data_ptr<int8_t>();
  auto* scales = result.scale.mutable_data_ptr<float>();
  for (int64_t c = 0; c < channels; ++c) {
    const size_t p = axis->isNone() ? 0 : static_cast<size_t>(c);
    scales[c] = qparams.scale[p];
    for (int64_t i = c * products; i < (c + 1) * products; ++i) {
      TORCH_CHECK_VALUE(std::isfinite(in[i]), "qatx.convert: a weight of ",
                        node->input(0)->debugName(), " is NaN or infinite");
      const float q = std::nearbyint(in[i] * qparams.inv_scale[p]) + qparams.zero_point[p];
      const float clamped =
          std::min(std::max(q, static_cast<float>(quant_min)), static_cast<float>(quant_max));
      const float code = clamped - qparams.zero_point[p];
      if (code < -128.0f || code > 127.0f) return "weight codes do not fit 8 signed bits";
      codes[i] = static_cast<int8_t>(code);
    }
  }
  return "";
}

std::string lower_weights(Lowering& lowering, jit::Value* weight, jit::Value* bias, int64_t dim,
                          engine::Node& node) {
  WeightCodes weights;
  if (auto reason = read_weight(lowering, weight, dim, weights); !reason.empty()) return reason;
  const auto bias_constant = lowering.constant(bias);
  if (!bias_constant) return "bias depends on the input";
  const int64_t channels = weights.codes.size(0);
  at::Tensor bias_tensor = at::zeros({channels}, at::kFloat);
  if (bias_constant->isTensor() && bias_constant->toTensor().defined()) {
    bias_tensor = bias_constant->toTensor().to(at::kFloat).contiguous().clone();
    TORCH_CHECK_VALUE(bias_tensor.isfinite().all().item<bool>(), "qatx.convert: the bias of ",
                      weight->node()->input(0)->debugName(), " has NaN or infinite elements");
  }
  if (weights.codes.numel() / channels > 65536) {
    return "an output sums more than 65536 products, which may not fit 32 bits";
  }
  node.tensors = {
      {"weight", weights.codes}, {"weight_scale", weights.scale}, {"bias", bias_tensor}};
  lowering.set_weight_bytes(engine::encode_bytes(weights.codes).data.numel());
  return "";
}

std::string lower_layer(Lowering& lowering, jit::Value* input, jit::Value* weight, jit::Value* bias,
                        int64_t dim, engine::Node& node) {
  if (!lowering.codes(input)) return "input is not fake-quantized";
  std::string reason = lower_weights(lowering, weight, bias, dim, node);
  if (reason.empty()) node.inputs = {lowering.use_codes(input)};
  return reason;
}

}  // namespace qatx::torchscript
