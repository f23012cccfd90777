#include "qatx/model/training.h"

#include "qatx/nn/conv_bn.h"

namespace qatx {

ParameterGroups parameter_groups(const torch::nn::Module& model) {
  ParameterGroups groups;
  for (const at::Tensor& parameter : model.parameters()) {
    if (!parameter.requires_grad()) continue;
    (parameter.dim() > 1 ? groups.weights : groups.others).push_back(parameter);
  }
  return groups;
}

void freeze_batch_norm(torch::nn::Module& model) {
  model.apply([](torch::nn::Module& module) {
    if (auto* folded = module.as<nn::ConvBn2dImpl>()) folded->batch_norm_frozen = true;
    const bool is_norm = module.as<torch::nn::BatchNorm1dImpl>() ||
                         module.as<torch::nn::BatchNorm2dImpl>() ||
                         module.as<torch::nn::BatchNorm3dImpl>();
    if (is_norm) module.eval();
  });
}

}  // namespace qatx
