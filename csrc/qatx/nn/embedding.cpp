#include "qatx/nn/embedding.h"

#include <ATen/ops/embedding.h>
#include <ATen/ops/empty.h>
#include <torch/nn/init.h>

#include "qatx/nn/listener.h"

namespace qatx::nn {

EmbeddingImpl::EmbeddingImpl(EmbeddingOptions options_)
    : WeightedLayer(options_.settings()), options(std::move(options_)) {
  EmbeddingImpl::reset();
}

at::Tensor EmbeddingImpl::forward(const at::Tensor& indices) {
  return tell(*this, indices, [&] {
    return finish(at::embedding(weight_fake_quantize->forward(weight), indices,
                                options.padding_idx().value_or(-1)));
  });
}

void EmbeddingImpl::reset() {
  const std::optional<int64_t> padding = options.padding_idx();
  const int64_t rows = options.num_embeddings();
  if (padding) {
    TORCH_CHECK_VALUE(*padding >= -rows && *padding < rows, "Embedding: padding_idx must be in ",
                      -rows, "..", rows - 1, ", got ", *padding);
    options.padding_idx(*padding < 0 ? *padding + rows : *padding);
  }
  weight = register_parameter("weight", at::empty({rows, options.embedding_dim()}));
  reset_parameters();
  register_weight(*this, weight.sizes());
  register_output();
}

void EmbeddingImpl::reset_parameters() {
  torch::nn::init::normal_(weight);
  if (!options.padding_idx()) return;
  const at::NoGradGuard no_grad;
  weight[*options.padding_idx()].zero_();
}

void EmbeddingImpl::pretty_print(std::ostream& stream) const {
  stream << "qatx::nn::Embedding(num_embeddings=" << options.num_embeddings()
         << ", embedding_dim=" << options.embedding_dim();
  if (options.padding_idx()) stream << ", padding_idx=" << *options.padding_idx();
  stream << ')';
}

void EmbeddingImpl::take_over(const torch::nn::EmbeddingImpl& source) {
  const torch::Device device = source.weight.device();
  weight_fake_quantize->to(device);
  if (output_fake_quantize) output_fake_quantize->to(device);
  parameters_["weight"] = weight = source.weight;
  train(source.is_training());
}

Embedding from_float(const torch::nn::EmbeddingImpl& embedding, const LayerSettings& settings) {
  const auto& options = embedding.options;
  TORCH_CHECK_VALUE(!options.max_norm() && !options.sparse() && !options.scale_grad_by_freq(),
                    "Embedding: the table must have no max_norm, sparse or scale_grad_by_freq");
  TORCH_CHECK_VALUE(embedding.weight.scalar_type() == at::kFloat,
                    "Embedding: the weight must be float32, got ", embedding.weight.scalar_type());
  const KeepRandomState keep;
  Embedding layer(EmbeddingOptions(options.num_embeddings(), options.embedding_dim())
                      .padding_idx(options.padding_idx())
                      .qconfig(settings.qconfig)
                      .quantize_output(settings.quantize_output));
  layer->take_over(embedding);
  return layer;
}

}  // namespace qatx::nn
