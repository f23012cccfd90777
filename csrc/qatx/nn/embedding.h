#pragma once

#include <torch/nn/modules/embedding.h>

#include <optional>

#include "qatx/nn/layer.h"

namespace qatx::nn {

// Options of Embedding: those of torch::nn that can be quantized, and LayerOptions (without a
// ReLU).
struct C10_EXPORT EmbeddingOptions : LayerOptions<EmbeddingOptions> {
  EmbeddingOptions(int64_t num_embeddings, int64_t embedding_dim)
      : num_embeddings_(num_embeddings), embedding_dim_(embedding_dim) {}

  TORCH_ARG(int64_t, num_embeddings);
  TORCH_ARG(int64_t, embedding_dim);
  TORCH_ARG(std::optional<int64_t>, padding_idx) = std::nullopt;
};

// torch::nn::Embedding with a quantized table, by default with a scale for each row, then a
// quantized output.
//
// Takes int64 indices of any shape. Returns float32 [..., embedding_dim].
class C10_EXPORT EmbeddingImpl : public torch::nn::Cloneable<EmbeddingImpl>, public WeightedLayer {
 public:
  EmbeddingImpl(int64_t num_embeddings, int64_t embedding_dim)
      : EmbeddingImpl(EmbeddingOptions(num_embeddings, embedding_dim)) {}
  explicit EmbeddingImpl(EmbeddingOptions options_);

  at::Tensor forward(const at::Tensor& indices);
  void reset() override;
  // As torch::nn::Embedding does: normal, with zeros at padding_idx.
  void reset_parameters();
  void pretty_print(std::ostream& stream) const override;
  // Takes the table of `source` itself, its device and mode.
  void take_over(const torch::nn::EmbeddingImpl& source);

  EmbeddingOptions options;
  at::Tensor weight;
};
TORCH_MODULE(Embedding);

// The quantized twin of a float layer: it takes over the table itself, the device and the mode.
// Throws c10::Error (ValueError) where the table is not float32, or has a max_norm, sparse or
// scaled gradients.
C10_EXPORT Embedding from_float(const torch::nn::EmbeddingImpl& embedding,
                                const LayerSettings& settings = {});

}  // namespace qatx::nn
