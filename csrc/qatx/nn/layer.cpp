#include "qatx/nn/layer.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/relu6.h>

#include "qatx/nn/quantizers.h"

namespace qatx::nn {
namespace {

constexpr int64_t kLsqBits = 4;  // up to here, a range that clips is the better start

std::string range_method(const std::optional<std::string>& wanted, const QuantSpec& spec) {
  return wanted.value_or(spec.bits() <= kLsqBits ? "lsq" : "min_max");
}

using Made = std::shared_ptr<FakeQuantizeImpl>;

// What QConfig asks of LSQ alone.
Made make_lsq(const QConfig& qconfig, FakeQuantizeOptions options, bool learn_scale) {
  return std::make_shared<FakeQuantizeImpl>(
      options.learn_scale(learn_scale)
          .power_of_two(qconfig.power_of_two())
          .stochastic_rounding(qconfig.stochastic_rounding()));
}

Made make_weight_fake_quantize(const QConfig& qconfig, at::IntArrayRef sizes) {
  const QuantSpec& spec = qconfig.weight();
  auto options = FakeQuantizeOptions(spec, Role::kWeight)
                     .scale_shape(spec.scale_shape(sizes))
                     .range_method(range_method(qconfig.weight_range(), spec));
  switch (qconfig.weight_quantizer()) {
    case WeightQuantizer::kMovingAverage:
      return std::make_shared<MovingAverageImpl>(options);
    case WeightQuantizer::kDoReFa:
      return std::make_shared<DoReFaImpl>(options);
    default:
      return make_lsq(qconfig, options, qconfig.weight_quantizer() == WeightQuantizer::kLsq);
  }
}

// positive: the value is the output of a ReLU.
Made make_activation_fake_quantize(const QConfig& qconfig, bool positive) {
  const QuantSpec& spec = qconfig.activation();
  const auto options = FakeQuantizeOptions(spec, Role::kActivation)
                           .range_method(range_method(qconfig.activation_range(), spec));
  const ActivationQuantizer quantizer = qconfig.activation_quantizer();
  if (quantizer == ActivationQuantizer::kMovingAverage)
    return std::make_shared<MovingAverageImpl>(options);
  if (quantizer == ActivationQuantizer::kPact && positive) {
    return std::make_shared<PACTImpl>(options);
  }
  return make_lsq(qconfig, options, quantizer != ActivationQuantizer::kFixed);
}

}  // namespace

void QuantizedLayer::quantize_output(QConfig qconfig) {
  qconfig.check();
  FakeQuantize made(make_activation_fake_quantize(qconfig, settings.relu != Relu::kNone));
  made->train(module().is_training());
  const bool is_new = output_fake_quantize.is_empty();
  output_fake_quantize = std::move(made);
  settings.qconfig = std::move(qconfig);
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
  if (settings.quantize_output) quantize_output(settings.qconfig);
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
