#pragma once

#include <string>

#include "qatx/convert/lowering.h"

namespace qatx::torchscript {

// What stands between the product of queries and keys and its softmax: multiplication with a
// constant (`divide`: division by one), and the addition of a mask. Each returns the reason why the
// node is none of it, or an empty string.
std::string lower_score_scale(Lowering& lowering, torch::jit::Node* node, bool divide);
std::string lower_score_mask(Lowering& lowering, torch::jit::Node* node);

}  // namespace qatx::torchscript
