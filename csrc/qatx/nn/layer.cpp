#include "qatx/nn/layer.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/relu6.h>

#include "qatx/nn/make.h"

namespace qatx::nn {

void QuantizedLayer::quantize_output(QConfig qconfig) {
  qconfig.check();
  FakeQuantize made(make_activation_fake_quantize(qconfig, settings.relu != Relu::kNone));
  made->train(module().is_training());
  const bool is_new = output_fake_quantize.is_empty();
  output_fake_quantize = std::move(made);
  settings.output_qconfig = std::move(qconfig);
  settings.quantize_output = true;
  if (is_new) {
    module().register_module("output_fake_quantize", output_fake_quantize);
  } else {
    module().replace_module("output_fake_quantize", output_fake_quantize);
  }
}

void QuantizedLayer::register_output() {
  settings.qconfig.check();
  output_fake_quantize = nullptr;
  if (settings.quantize_output) quantize_output(settings.output_qconfig.value_or(settings.qconfig));
}

at::Tensor QuantizedLayer::finish(at::Tensor y) {
  if (settings.relu == Relu::kRelu) y = at::relu(y);
  if (settings.relu == Relu::kRelu6) y = at::relu6(y);
  return output_fake_quantize.is_empty() ? y : output_fake_quantize->forward(y);
}

void QuantizedLayer::print_settings(std::ostream& stream) const {
  constexpr const char* kNames[] = {"none", "relu", "relu6"};
  stream << ", relu=" << kNames[static_cast<size_t>(settings.relu)];
}

torch::nn::Module& QuantizedLayer::module() { return dynamic_cast<torch::nn::Module&>(*this); }

void WeightedLayer::register_weight(torch::nn::Module& module, at::IntArrayRef sizes) {
  settings.qconfig.check();
  weight_fake_quantize = FakeQuantize(make_weight_fake_quantize(settings.qconfig, sizes));
  module.register_module("weight_fake_quantize", weight_fake_quantize);
}

KeepRandomState::KeepRandomState() : state_(at::detail::getDefaultCPUGenerator().get_state()) {}

KeepRandomState::~KeepRandomState() {
  at::Generator generator = at::detail::getDefaultCPUGenerator();
  generator.set_state(state_);
}

}  // namespace qatx::nn
