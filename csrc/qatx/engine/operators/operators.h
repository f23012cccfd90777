#pragma once

#include <memory>

#include "qatx/engine/node_reader.h"
#include "qatx/engine/operator.h"

namespace qatx::engine {

// One factory for each operator, by its name in Node::op. Where an operator's output is float32 it
// writes NHWC.
std::unique_ptr<Operator> make_add(const NodeReader& node);
std::unique_ptr<Operator> make_affine(const NodeReader& node);
std::unique_ptr<Operator> make_amax(const NodeReader& node);
std::unique_ptr<Operator> make_avg_pool2d(const NodeReader& node);
std::unique_ptr<Operator> make_avg_pool3d(const NodeReader& node);
std::unique_ptr<Operator> make_cat(const NodeReader& node);
std::unique_ptr<Operator> make_conv2d(const NodeReader& node);
std::unique_ptr<Operator> make_conv3d(const NodeReader& node);
std::unique_ptr<Operator> make_conv_transpose2d(const NodeReader& node);
std::unique_ptr<Operator> make_conv_transpose3d(const NodeReader& node);
std::unique_ptr<Operator> make_dequantize(const NodeReader& node);
std::unique_ptr<Operator> make_div(const NodeReader& node);
std::unique_ptr<Operator> make_dynamic_fake_quantize(const NodeReader& node);
std::unique_ptr<Operator> make_dynamic_linear(const NodeReader& node);
std::unique_ptr<Operator> make_embedding(const NodeReader& node);
std::unique_ptr<Operator> make_layer_norm(const NodeReader& node);
std::unique_ptr<Operator> make_linear(const NodeReader& node);
std::unique_ptr<Operator> make_matmul(const NodeReader& node);
std::unique_ptr<Operator> make_max_pool2d(const NodeReader& node);
std::unique_ptr<Operator> make_max_pool3d(const NodeReader& node);
std::unique_ptr<Operator> make_mean(const NodeReader& node);
std::unique_ptr<Operator> make_move(const NodeReader& node);
std::unique_ptr<Operator> make_mul(const NodeReader& node);
std::unique_ptr<Operator> make_pad(const NodeReader& node);
std::unique_ptr<Operator> make_quantize(const NodeReader& node);
std::unique_ptr<Operator> make_slice(const NodeReader& node);
std::unique_ptr<Operator> make_softmax(const NodeReader& node);
std::unique_ptr<Operator> make_sub(const NodeReader& node);
std::unique_ptr<Operator> make_table(const NodeReader& node);
std::unique_ptr<Operator> make_upsample_bilinear(const NodeReader& node);
std::unique_ptr<Operator> make_upsample_nearest(const NodeReader& node);

}  // namespace qatx::engine
