#include "qatx/engine/operator.h"

#include <c10/util/Exception.h>

#include <string_view>
#include <utility>

#include "qatx/engine/operators/operators.h"

namespace qatx::engine {
namespace {

using Factory = std::unique_ptr<Operator> (*)(const NodeReader&);

constexpr std::pair<std::string_view, Factory> kOperators[] = {
    {"add", make_add},
    {"affine", make_affine},
    {"amax", make_amax},
    {"avg_pool2d", make_avg_pool2d},
    {"avg_pool3d", make_avg_pool3d},
    {"cat", make_cat},
    {"conv2d", make_conv2d},
    {"conv3d", make_conv3d},
    {"conv_transpose2d", make_conv_transpose2d},
    {"conv_transpose3d", make_conv_transpose3d},
    {"dequantize", make_dequantize},
    {"div", make_div},
    {"dynamic_fake_quantize", make_dynamic_fake_quantize},
    {"dynamic_linear", make_dynamic_linear},
    {"embedding", make_embedding},
    {"layer_norm", make_layer_norm},
    {"linear", make_linear},
    {"matmul", make_matmul},
    {"max_pool2d", make_max_pool2d},
    {"max_pool3d", make_max_pool3d},
    {"mean", make_mean},
    {"move", make_move},
    {"mul", make_mul},
    {"pad", make_pad},
    {"quantize", make_quantize},
    {"slice", make_slice},
    {"softmax", make_softmax},
    {"sub", make_sub},
    {"table", make_table},
    {"upsample_bilinear", make_upsample_bilinear},
    {"upsample_nearest", make_upsample_nearest},
};

}  // namespace

std::unique_ptr<Operator> make_operator(const Graph& graph, const Node& node) {
  for (const auto& [op, factory] : kOperators) {
    if (op == node.op) return factory(NodeReader(graph, node));
  }
  TORCH_CHECK_VALUE(false, "qatx program: operator '", node.op, "' of node '", node.name,
                    "' is not known to this qatx");
}

}  // namespace qatx::engine
