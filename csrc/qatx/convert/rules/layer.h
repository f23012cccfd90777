#pragma once

#include <string>

#include "qatx/convert/lowering.h"

namespace qatx::torchscript {

struct WeightCodes {
  at::Tensor codes;  // int8: code minus zero point
  at::Tensor scale;  // float32, by output channel
};

// The integers behind fake_quantize(constant weight, ...), by the same float operations; the weight
// has `dim` dimensions, output channels (or rows of a table) first. Returns an empty string, or the
// reason why it cannot.
std::string read_weight(Lowering& lowering, const torch::jit::Value* value, int64_t dim,
                        WeightCodes& result);

// Fake-quantized constant weights of `dim` dimensions, output channels first, and a constant bias
// or none, into the node's tensors. Returns an empty string, or the reason why it cannot.
std::string lower_weights(Lowering& lowering, torch::jit::Value* weight, torch::jit::Value* bias,
                          int64_t dim, engine::Node& node);

// What convolutions and linear layers have in common: codes as input, and what lower_weights()
// takes. Fills the node's input and tensors and returns an empty string, or the reason why it
// cannot.
std::string lower_layer(Lowering& lowering, torch::jit::Value* input, torch::jit::Value* weight,
                        torch::jit::Value* bias, int64_t dim, engine::Node& node);

}  // namespace qatx::torchscript
