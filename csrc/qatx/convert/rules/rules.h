#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "qatx/convert/lowering.h"

namespace qatx::torchscript {

// A rule lowers one kind of TorchScript node: it adds engine nodes and returns an empty string, or
// changes nothing and returns the reason why the node stays float, in words for the user.
using Rule = std::string (*)(Lowering& lowering, torch::jit::Node* node);

// The rule for an operator, or nullptr.
Rule find_rule(std::string_view kind);

// One function for each operator family, a file each.
std::string lower_fake_quantize(Lowering& lowering, torch::jit::Node* node);
std::string lower_dynamic_fake_quantize(Lowering& lowering, torch::jit::Node* node);
std::string lower_pact(Lowering& lowering, torch::jit::Node* node);
std::string lower_convolution(Lowering& lowering, torch::jit::Node* node);
std::string lower_linear(Lowering& lowering, torch::jit::Node* node);
std::string lower_add(Lowering& lowering, torch::jit::Node* node);
std::string lower_mul(Lowering& lowering, torch::jit::Node* node);
std::string lower_div(Lowering& lowering, torch::jit::Node* node);
std::string lower_sub(Lowering& lowering, torch::jit::Node* node);
std::string lower_matmul(Lowering& lowering, torch::jit::Node* node);
std::string lower_softmax(Lowering& lowering, torch::jit::Node* node);
std::string lower_masked_fill(Lowering& lowering, torch::jit::Node* node);
std::string lower_where(Lowering& lowering, torch::jit::Node* node);
std::string lower_embedding(Lowering& lowering, torch::jit::Node* node);
std::string lower_embedding_bag(Lowering& lowering, torch::jit::Node* node);
std::string lower_layer_norm(Lowering& lowering, torch::jit::Node* node);
std::string lower_table(Lowering& lowering, torch::jit::Node* node);
std::string lower_batch_norm(Lowering& lowering, torch::jit::Node* node);
std::string lower_activation(Lowering& lowering, torch::jit::Node* node);
std::string lower_max_pool(Lowering& lowering, torch::jit::Node* node);
std::string lower_avg_pool(Lowering& lowering, torch::jit::Node* node);
std::string lower_adaptive_avg_pool(Lowering& lowering, torch::jit::Node* node);
std::string lower_mean(Lowering& lowering, torch::jit::Node* node);
std::string lower_flatten(Lowering& lowering, torch::jit::Node* node);
std::string lower_reshape(Lowering& lowering, torch::jit::Node* node);
std::string lower_identity(Lowering& lowering, torch::jit::Node* node);
std::string lower_permute(Lowering& lowering, torch::jit::Node* node);
std::string lower_transpose(Lowering& lowering, torch::jit::Node* node);
std::string lower_unflatten(Lowering& lowering, torch::jit::Node* node);
std::string lower_squeeze(Lowering& lowering, torch::jit::Node* node);
std::string lower_unsqueeze(Lowering& lowering, torch::jit::Node* node);
std::string lower_pixel_shuffle(Lowering& lowering, torch::jit::Node* node);
std::string lower_pixel_unshuffle(Lowering& lowering, torch::jit::Node* node);
std::string lower_channel_shuffle(Lowering& lowering, torch::jit::Node* node);
std::string lower_slice(Lowering& lowering, torch::jit::Node* node);
std::string lower_narrow(Lowering& lowering, torch::jit::Node* node);
std::string lower_select(Lowering& lowering, torch::jit::Node* node);
std::string lower_split(Lowering& lowering, torch::jit::Node* node);
std::string lower_unbind(Lowering& lowering, torch::jit::Node* node);
std::string lower_list_unpack(Lowering& lowering, torch::jit::Node* node);
std::string lower_pad(Lowering& lowering, torch::jit::Node* node);
std::string lower_upsample_nearest(Lowering& lowering, torch::jit::Node* node);
std::string lower_upsample_bilinear(Lowering& lowering, torch::jit::Node* node);
std::string lower_list(Lowering& lowering, torch::jit::Node* node);
std::string lower_cat(Lowering& lowering, torch::jit::Node* node);
std::string lower_max_pool1d(Lowering& lowering, torch::jit::Node* node);
std::string lower_avg_pool1d(Lowering& lowering, torch::jit::Node* node);
std::string lower_adaptive_pool1d(Lowering& lowering, torch::jit::Node* node);
std::string lower_amax(Lowering& lowering, torch::jit::Node* node);

}  // namespace qatx::torchscript
