#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>

#include "qatx/engine/codebook.h"
#include "qatx/engine/operator.h"
#include "qatx/engine/passes/passes.h"

namespace qatx::engine {
namespace {

// Weights of 4 or 2 bits stay: their codes in the output would take more.
bool can_fold(const Graph& graph, const Node& node) {
  return node.op == "embedding" && node.ints.at("bags") == std::vector<int64_t>{0} &&
         graph.values[static_cast<size_t>(node.output)].quantized() &&
         node.tensors.contains("weight_scale") &&
         encode_bytes(node.tensors.at("weight")).codebook.empty();
}

}  // namespace

void fold_tables(Graph& graph) {
  for (Node& node : graph.nodes) {
    if (!can_fold(graph, node)) continue;
    const at::Tensor weight = node.tensors.at("weight");
    const at::Tensor rows = at::arange(weight.size(0), at::kLong);
    const at::Tensor codes = at::empty(weight.sizes(), at::kByte);
    const Shape shapes[] = {rows.sizes().vec()};
    const Buffer inputs[] = {{rows.mutable_data_ptr()}};
    const auto look_up = make_operator(graph, node);
    look_up->plan(shapes)->run(inputs, {codes.mutable_data_ptr()});
    node.tensors = {{"weight", codes}};
    node.floats.erase("clamp");
  }
}

}  // namespace qatx::engine
