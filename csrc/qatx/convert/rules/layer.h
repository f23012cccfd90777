#pragma once

#include <string>

#include "qatx/convert/lowering.h"

namespace qatx::torchscript {

// What convolutions and linear layers have in common: codes as input, fake-quantized constant
// weights of `dim` dimensions, output channels first, and a constant bias or none. Fills the node's
// input and tensors and returns an empty string, or the reason why it cannot.
std::string lower_layer(Lowering& lowering, torch::jit::Value* input, torch::jit::Value* weight,
                        torch::jit::Value* bias, int64_t dim, engine::Node& node);

}  // namespace qatx::torchscript
