#include "qatx/convert/rules/between.h"

#include <utility>

#include "qatx/convert/rules/sizes.h"
#include "qatx/engine/operators/layout.h"

namespace qatx::torchscript {

namespace jit = torch::jit;

void add_between(Lowering& lowering, engine::Node node, jit::Value* input, jit::Value* output,
                 engine::MoveKind kind, const std::vector<int64_t>& before,
                 const std::vector<int64_t>& behind) {
  engine::Node raise{.op = "move", .inputs = {node.inputs[0]}};
  engine::add_move(raise.ints["steps"], kind, before);
  node.inputs[0] = add_inner(lowering, std::move(raise), lowering.codes(input));
  node.name = output->node()->scopeName();
  engine::Node lower{.op = "move"};
  engine::add_move(lower.ints["steps"], kind, behind);
  lower.inputs = {add_inner(lowering, std::move(node), std::nullopt)};
  lowering.add_node(std::move(lower), output, std::nullopt);
}

void add_as_pixels(Lowering& lowering, engine::Node node, jit::Value* input, jit::Value* output,
                   size_t dimensions) {
  if (!engine::is_image(dimensions)) {
    lowering.add_node(std::move(node), output, std::nullopt);
  } else if (dimensions == 5) {
    add_between(lowering, std::move(node), input, output, engine::MoveKind::permute,
                {0, 4, 1, 2, 3}, {0, 2, 3, 4, 1});
  } else {
    add_between(lowering, std::move(node), input, output, engine::MoveKind::permute, {0, 3, 1, 2},
                {0, 2, 3, 1});
  }
}

}  // namespace qatx::torchscript
