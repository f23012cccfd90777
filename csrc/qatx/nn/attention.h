#pragma once

#include <ATen/core/Tensor.h>
#include <c10/macros/Export.h>
#include <torch/arg.h>
#include <torch/nn/cloneable.h>
#include <torch/nn/pimpl.h>

#include <optional>
#include <ostream>

#include "qatx/nn/fake_quantize.h"
#include "qatx/nn/qconfig.h"

namespace qatx::nn {

struct C10_EXPORT ScaledDotProductAttentionOptions {
  // How to quantize the probabilities.
  TORCH_ARG(QConfig, qconfig) = {};
  // Whether they are quantized, or all stays in float: for a model that qatx::prepare will take.
  TORCH_ARG(bool, quantize_probabilities) = true;
};

// softmax(query @ key^T * scale + mask) @ value, with quantized probabilities.
//
// What at::scaled_dot_product_attention computes, with both products between quantized values. The
// query, key and value should be quantized already, key and value symmetrically
// (QuantSpec(8, true, true)): in integers they take the place of weights. The softmax itself is
// computed in float32. The result is not quantized: what reads it needs a QuantStub before it.
class C10_EXPORT ScaledDotProductAttentionImpl
    : public torch::nn::Cloneable<ScaledDotProductAttentionImpl> {
 public:
  explicit ScaledDotProductAttentionImpl(ScaledDotProductAttentionOptions options_ = {});

  // Attends, and returns float32 [N, heads, T, D].
  //
  // - query: float32 [N, heads, T, E], or with other leading dimensions.
  // - key: [N, heads, S, E].
  // - value: [N, heads, S, D].
  // - attn_mask: bool, true where to attend, or float32 that is added to the scores; of sizes that
  //   broadcast to [N, heads, T, S]; undefined: none. In the converted model a float32 mask that is
  //   the same for all heads stays within the integer program.
  // - dropout_p: the share of probabilities that are left out. As in LibTorch it does not depend on
  //   the mode of the module.
  // - is_causal: whether each query only meets keys up to its own place.
  // - scale: of the scores; nullopt: 1 / sqrt(E).
  at::Tensor forward(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                     const at::Tensor& attn_mask = {}, double dropout_p = 0.0,
                     bool is_causal = false, std::optional<double> scale = std::nullopt);
  void reset() override;
  void pretty_print(std::ostream& stream) const override;
  // Quantizes the probabilities from here on.
  void quantize_probabilities(QConfig qconfig);

  ScaledDotProductAttentionOptions options;
  // Quantizes what the softmax gives; empty where options.quantize_probabilities() is false.
  FakeQuantize probability_fake_quantize{nullptr};
};
TORCH_MODULE(ScaledDotProductAttention);

}  // namespace qatx::nn
