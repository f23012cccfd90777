#include "qatx/convert/rules/rules.h"

#include <utility>

namespace qatx::torchscript {
namespace {

constexpr std::pair<std::string_view, Rule> kRules[] = {
    {"aten::_convolution", lower_convolution},
    {"aten::_convolution_mode", lower_convolution},
    {"aten::abs", lower_table},
    {"aten::adaptive_avg_pool2d", lower_adaptive_avg_pool2d},
    {"aten::add", lower_add},
    {"aten::avg_pool2d", lower_avg_pool2d},
    {"aten::celu", lower_table},
    {"aten::clamp", lower_activation},
    {"aten::clamp_max", lower_table},
    {"aten::clamp_min", lower_table},
    {"aten::contiguous", lower_identity},
    {"aten::conv2d", lower_convolution},
    {"aten::cos", lower_table},
    {"aten::div", lower_table},
    {"aten::dropout", lower_identity},
    {"aten::elu", lower_table},
    {"aten::erf", lower_table},
    {"aten::exp", lower_table},
    {"aten::expm1", lower_table},
    {"aten::feature_dropout", lower_identity},
    {"aten::flatten", lower_flatten},
    {"aten::gelu", lower_table},
    {"aten::hardshrink", lower_table},
    {"aten::hardsigmoid", lower_table},
    {"aten::hardswish", lower_table},
    {"aten::hardtanh", lower_activation},
    {"aten::leaky_relu", lower_table},
    {"aten::linear", lower_linear},
    {"aten::log", lower_table},
    {"aten::log1p", lower_table},
    {"aten::log_sigmoid", lower_table},
    {"aten::max_pool2d", lower_max_pool2d},
    {"aten::mean", lower_mean},
    {"aten::mish", lower_table},
    {"aten::mul", lower_mul},
    {"aten::neg", lower_table},
    {"aten::pow", lower_table},
    {"aten::prelu", lower_table},
    {"aten::reciprocal", lower_table},
    {"aten::relu", lower_activation},
    {"aten::relu6", lower_activation},
    {"aten::reshape", lower_reshape},
    {"aten::rsqrt", lower_table},
    {"aten::rsub", lower_table},
    {"aten::selu", lower_table},
    {"aten::sigmoid", lower_table},
    {"aten::silu", lower_table},
    {"aten::sin", lower_table},
    {"aten::softplus", lower_table},
    {"aten::softshrink", lower_table},
    {"aten::sqrt", lower_table},
    {"aten::square", lower_table},
    {"aten::sub", lower_table},
    {"aten::tan", lower_table},
    {"aten::tanh", lower_table},
    {"aten::threshold", lower_table},
    {"aten::view", lower_reshape},
    {"qatx::fake_quantize", lower_fake_quantize},
    {"qatx::pact", lower_pact},
};

}  // namespace

Rule find_rule(std::string_view kind) {
  for (const auto& [name, rule] : kRules) {
    if (name == kind) return rule;
  }
  return nullptr;
}

}  // namespace qatx::torchscript
