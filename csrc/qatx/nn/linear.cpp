#include "qatx/nn/linear.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/linear.h>
#include <torch/nn/init.h>

#include <cmath>

#include "qatx/nn/listener.h"
#include "qatx/ops/dynamic_fake_quantize.h"

namespace qatx::nn {

LinearImpl::LinearImpl(LinearOptions options_)
    : WeightedLayer(options_.settings()), options(std::move(options_)) {
  LinearImpl::reset();
}

at::Tensor LinearImpl::forward(const at::Tensor& input) {
  return tell(*this, input, [&] {
    const at::Tensor x =
        is_dynamic() ? std::get<0>(dynamic_fake_quantize(input, dynamic_quant_max())) : input;
    return finish(at::linear(x, weight_fake_quantize->forward(weight), bias));
  });
}

bool LinearImpl::is_dynamic() const {
  return settings.qconfig.activation_quantizer() == ActivationQuantizer::kDynamic;
}

int64_t LinearImpl::dynamic_quant_max() const {
  return QuantSpec(settings.qconfig.activation().bits(), true, true).quant_max();
}

void LinearImpl::reset() {
  weight = register_parameter("weight", at::empty({options.out_features(), options.in_features()}));
  bias = options.bias() ? register_parameter("bias", at::empty({options.out_features()}))
                        : register_parameter("bias", at::Tensor(), /*requires_grad=*/false);
  reset_parameters();
  register_weight(*this, weight.sizes());
  register_output();
}

void LinearImpl::reset_parameters() {
  torch::nn::init::kaiming_uniform_(weight, std::sqrt(5));
  if (!bias.defined()) return;
  const double bound =
      options.in_features() > 0 ? 1.0 / std::sqrt(static_cast<double>(options.in_features())) : 0.0;
  torch::nn::init::uniform_(bias, -bound, bound);
}

void LinearImpl::pretty_print(std::ostream& stream) const {
  stream << "qatx::nn::Linear(in_features=" << options.in_features()
         << ", out_features=" << options.out_features() << ", bias=" << std::boolalpha
         << options.bias() << ')';
  print_settings(stream);
}

void LinearImpl::take_over(const torch::nn::LinearImpl& source) {
  const torch::Device device = source.weight.device();
  weight_fake_quantize->to(device);
  if (output_fake_quantize) output_fake_quantize->to(device);
  parameters_["weight"] = weight = source.weight;
  if (source.bias.defined()) parameters_["bias"] = bias = source.bias;
  train(source.is_training());
}

Linear from_float(const torch::nn::LinearImpl& linear, const LayerSettings& settings) {
  TORCH_CHECK_VALUE(linear.weight.scalar_type() == at::kFloat,
                    "Linear: the weight must be float32, got ", linear.weight.scalar_type());
  const KeepRandomState keep;
  Linear layer(LinearOptions(linear.options.in_features(), linear.options.out_features())
                   .bias(linear.options.bias())
                   .qconfig(settings.qconfig)
                   .relu(settings.relu)
                   .quantize_output(settings.quantize_output));
  layer->take_over(linear);
  return layer;
}

}  // namespace qatx::nn
