#include "qatx/engine/operator.h"

#include <c10/util/Exception.h>

#include <string_view>
#include <utility>

#include "qatx/engine/operators/operators.h"

namespace qatx::engine {
namespace {

using Factory = std::unique_ptr<Operator> (*)(const NodeReader&);

constexpr std::pair<std::string_view, Factory> kOperators[] = {
    {"add", make_add},         {"avg_pool2d", make_avg_pool2d},
    {"conv2d", make_conv2d},   {"dequantize", make_dequantize},
    {"linear", make_linear},   {"max_pool2d", make_max_pool2d},
    {"mul", make_mul},         {"quantize", make_quantize},
    {"reshape", make_reshape}, {"table", make_table},
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
