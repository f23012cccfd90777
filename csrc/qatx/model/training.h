#pragma once

#include <c10/util/Exception.h>
#include <torch/nn/module.h>
#include <torch/optim/optimizer.h>

#include <cmath>
#include <utility>
#include <vector>

namespace qatx {

// A model's parameters that require a gradient, for an optimizer whose weight decay is to reach
// weights only.
struct ParameterGroups {
  std::vector<at::Tensor> weights;  // two dimensions and more
  std::vector<at::Tensor> others;   // scales, zero points, biases, normalization
};

// Splits a model's parameters. Decay would pull scales and zero points away from where the loss
// wants them, and is of no use on biases and normalization. They are told apart by their shape:
// what has one dimension or none does not decay.
C10_EXPORT ParameterGroups parameter_groups(const torch::nn::Module& model);

// An optimizer over these groups, whose weight decay is that of `options` for weights and 0 for all
// others:
//   auto optimizer = qatx::make_optimizer<torch::optim::SGD>(
//       *model, torch::optim::SGDOptions(0.01).weight_decay(1e-4));
// Throws c10::Error (ValueError) where the weight decay is negative or not finite.
template <class Optimizer, class Options>
Optimizer make_optimizer(const torch::nn::Module& model, const Options& options) {
  TORCH_CHECK_VALUE(std::isfinite(options.weight_decay()) && options.weight_decay() >= 0,
                    "qatx.make_optimizer: weight_decay must be finite and at least 0, got ",
                    options.weight_decay());
  ParameterGroups split = parameter_groups(model);
  std::vector<torch::optim::OptimizerParamGroup> groups;
  groups.emplace_back(std::move(split.weights));
  groups.emplace_back(std::move(split.others));
  Optimizer optimizer(std::move(groups), options);
  // Only now: LibTorch takes a group's option that has the default of its class for one that was
  // not set, and gives it that of the optimizer.
  static_cast<Options&>(optimizer.param_groups()[1].options()).weight_decay(0.0);
  return optimizer;
}

// Makes the batch normalization of ConvBn2d layers use its running statistics, and leave them
// alone, in training too.
//
// Late in training this removes the noise of batch statistics: from here on training computes what
// is deployed. Gamma and beta are still trained. It lasts: train() does not undo it. Batch
// normalization that is not folded is put into evaluation mode, which the next train() ends.
C10_EXPORT void freeze_batch_norm(torch::nn::Module& model);

}  // namespace qatx
