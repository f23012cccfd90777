#include "qatx/nn/attention.h"

#include <ATen/ops/dropout.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/zeros_like.h>

#include <cmath>
#include <limits>

#include "qatx/nn/listener.h"
#include "qatx/nn/make.h"

namespace qatx::nn {
namespace {

at::Tensor as_summand(const at::Tensor& allowed) {
  return at::zeros_like(allowed, at::kFloat)
      .masked_fill(allowed.logical_not(), -std::numeric_limits<double>::infinity());
}

}  // namespace

ScaledDotProductAttentionImpl::ScaledDotProductAttentionImpl(
    ScaledDotProductAttentionOptions options_)
    : options(std::move(options_)) {
  ScaledDotProductAttentionImpl::reset();
}

at::Tensor ScaledDotProductAttentionImpl::forward(const at::Tensor& query, const at::Tensor& key,
                                                  const at::Tensor& value,
                                                  const at::Tensor& attn_mask, double dropout_p,
                                                  bool is_causal, std::optional<double> scale) {
  return tell(*this, {query, key, value}, [&] {
    const double factor = scale ? *scale : 1.0 / std::sqrt(static_cast<double>(query.size(-1)));
    at::Tensor scores = at::matmul(query, key.transpose(-2, -1)) * factor;
    if (is_causal) {
      const auto options_of_mask = query.options().dtype(at::kBool);
      scores =
          scores + as_summand(at::ones({query.size(-2), key.size(-2)}, options_of_mask).tril());
    }
    if (attn_mask.defined()) {
      const bool is_bool = attn_mask.scalar_type() == at::kBool;
      scores = scores + (is_bool ? as_summand(attn_mask) : attn_mask);
    }
    at::Tensor probabilities = at::softmax(scores, -1);
    if (probability_fake_quantize) {
      probabilities = probability_fake_quantize->forward(probabilities);
    }
    if (dropout_p > 0.0) probabilities = at::dropout(probabilities, dropout_p, /*train=*/true);
    return at::matmul(probabilities, value);
  });
}

void ScaledDotProductAttentionImpl::reset() {
  options.qconfig().check();
  probability_fake_quantize = nullptr;
  if (options.quantize_probabilities()) quantize_probabilities(options.qconfig());
}

void ScaledDotProductAttentionImpl::quantize_probabilities(QConfig qconfig) {
  qconfig.check();
  const bool is_new = probability_fake_quantize.is_empty();
  probability_fake_quantize =
      FakeQuantize(make_activation_fake_quantize(qconfig, /*positive=*/false));
  probability_fake_quantize->train(is_training());
  options.qconfig(std::move(qconfig)).quantize_probabilities(true);
  if (is_new) {
    register_module("probability_fake_quantize", probability_fake_quantize);
  } else {
    replace_module("probability_fake_quantize", probability_fake_quantize);
  }
}

void ScaledDotProductAttentionImpl::pretty_print(std::ostream& stream) const {
  stream << "qatx::nn::ScaledDotProductAttention()";
}

}  // namespace qatx::nn
