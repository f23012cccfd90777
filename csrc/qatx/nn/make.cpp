#include "qatx/nn/make.h"

#include "qatx/nn/quantizers.h"

namespace qatx::nn {
namespace {

constexpr int64_t kLsqBits = 4;  // up to here, a range that clips is the better start

std::string range_method(const std::optional<std::string>& wanted, const QuantSpec& spec) {
  return wanted.value_or(spec.bits() <= kLsqBits ? "lsq" : "min_max");
}

// What QConfig asks of LSQ alone.
std::shared_ptr<FakeQuantizeImpl> make_lsq(const QConfig& qconfig, FakeQuantizeOptions options,
                                           bool learn_scale) {
  return std::make_shared<FakeQuantizeImpl>(
      options.learn_scale(learn_scale)
          .power_of_two(qconfig.power_of_two())
          .stochastic_rounding(qconfig.stochastic_rounding()));
}

}  // namespace

std::shared_ptr<FakeQuantizeImpl> make_weight_fake_quantize(const QConfig& qconfig,
                                                            at::IntArrayRef sizes) {
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

std::shared_ptr<FakeQuantizeImpl> make_activation_fake_quantize(const QConfig& qconfig,
                                                                bool positive) {
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

}  // namespace qatx::nn
