#include "qatx/convert/rules/rules.h"

#include <utility>

namespace qatx::torchscript {
namespace {

constexpr std::pair<std::string_view, Rule> kRules[] = {
    {"aten::_convolution", lower_convolution},
    {"aten::_convolution_mode", lower_convolution},
    {"aten::adaptive_avg_pool2d", lower_adaptive_avg_pool2d},
    {"aten::add", lower_add},
    {"aten::avg_pool2d", lower_avg_pool2d},
    {"aten::clamp", lower_activation},
    {"aten::contiguous", lower_identity},
    {"aten::conv2d", lower_convolution},
    {"aten::dropout", lower_identity},
    {"aten::feature_dropout", lower_identity},
    {"aten::flatten", lower_flatten},
    {"aten::hardtanh", lower_activation},
    {"aten::linear", lower_linear},
    {"aten::max_pool2d", lower_max_pool2d},
    {"aten::mean", lower_mean},
    {"aten::relu", lower_activation},
    {"aten::relu6", lower_activation},
    {"aten::reshape", lower_reshape},
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
