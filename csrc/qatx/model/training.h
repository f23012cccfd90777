#pragma once

#include <c10/util/Exception.h>
#include <torch/nn/module.h>
#include <torch/optim/optimizer.h>

#include <cmath>
#include <memory>
#include <vector>

namespace qatx {

// Splits a model's parameters for an optimizer, so that weight decay reaches weights only.
//
// Decay would pull scales and zero points away from where the loss wants them, and is of no use on
// biases and normalization. They are told apart by their shape: what has one dimension or none does
// not decay.
//
// - options: of the optimizer, such as torch::optim::SGDOptions, with the weight decay of weights.
//
// Returns two groups, with the parameters that require a gradient: the weights, and all others,
// whose weight decay is 0. Throws c10::Error (ValueError) where the weight decay is negative or not
// finite.
//   torch::optim::SGD optimizer(qatx::parameter_groups(*model, options), options);
template <class Options>
std::vector<torch::optim::OptimizerParamGroup> parameter_groups(const torch::nn::Module& model,
                                                                const Options& options) {
  TORCH_CHECK_VALUE(std::isfinite(options.weight_decay()) && options.weight_decay() >= 0,
                    "qatx.parameter_groups: weight_decay must be finite and at least 0, got ",
                    options.weight_decay());
  std::vector<at::Tensor> weights;
  std::vector<at::Tensor> others;
  for (const at::Tensor& parameter : model.parameters()) {
    if (parameter.requires_grad()) (parameter.dim() > 1 ? weights : others).push_back(parameter);
  }
  std::vector<torch::optim::OptimizerParamGroup> groups;
  groups.emplace_back(std::move(weights), std::make_unique<Options>(options));
  groups.emplace_back(std::move(others), std::make_unique<Options>(options));
  static_cast<Options&>(groups[1].options()).weight_decay(0.0);
  return groups;
}

// Makes the batch normalization of ConvBn2d layers use its running statistics, and leave them
// alone, in training too.
//
// Late in training this removes the noise of batch statistics: from here on training computes what
// is deployed. Gamma and beta are still trained. It lasts: train() does not undo it. Batch
// normalization that is not folded is put into evaluation mode, which the next train() ends.
C10_EXPORT void freeze_batch_norm(torch::nn::Module& model);

}  // namespace qatx
