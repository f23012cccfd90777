#include "qatx/engine/plan.h"

#include <ATen/ops/empty.h>
#include <c10/util/Exception.h>
#include <c10/util/accumulate.h>

#include <algorithm>
#include <cstring>

#include "qatx/engine/operators/layout.h"
#include "qatx/engine/recording.h"
#include "qatx/kernels/window.h"

namespace qatx::engine {
namespace {

at::Tensor make_output(const Shape& shape) {
  return at::empty(shape, at::TensorOptions(at::kFloat).memory_format(memory_format(shape.size())));
}

}  // namespace

Plan::Plan(const Graph& graph, std::span<const std::unique_ptr<Operator>> operators,
           std::span<const Shape> inputs)
    : graph_(graph), shapes_(graph.values.size()) {
  for (size_t i = 0; i < inputs.size(); ++i) {
    shapes_[static_cast<size_t>(graph.inputs[i])] = inputs[i];
    takes_any_layout_.push_back(
        std::all_of(graph.nodes.begin(), graph.nodes.end(), [&](const Node& node) {
          return node.op == "quantize" ||
                 std::count(node.inputs.begin(), node.inputs.end(), graph.inputs[i]) == 0;
        }));
    is_mask_.push_back(std::all_of(graph.nodes.begin(), graph.nodes.end(), [&](const Node& node) {
      const auto uses = std::count(node.inputs.begin(), node.inputs.end(), graph.inputs[i]);
      return uses == 0 || (uses == 1 && takes_mask(node) && node.inputs.back() == graph.inputs[i]);
    }));
  }
  for (size_t n = 0; n < graph.nodes.size(); ++n) {
    const Node& node = graph.nodes[n];
    Shape& shape = shapes_[static_cast<size_t>(node.output)];
    shape = operators[n]->output_shape(input_shapes(node, shapes_));
    empty_ |= c10::multiply_integers(shape) == 0;
  }
  if (empty_) return;
  placement_ = place_values(graph, operators, shapes_);
  for (size_t n = 0; n < graph.nodes.size(); ++n) {
    const Node& node = graph.nodes[n];
    const auto shapes = input_shapes(node, shapes_);
    const int64_t pitch = placement_.pitches[static_cast<size_t>(node.inputs[0])];
    const bool joins = pitch != 0 && operators[n]->joins(0, shapes[0].size());
    steps_.push_back(pitch == 0 || joins ? operators[n]->plan(shapes)
                                         : operators[n]->plan_apart(shapes, pitch));
  }
}

at::Tensor Plan::take_arena() const {
  {
    const std::lock_guard lock(mutex_);
    if (!arenas_.empty()) {
      at::Tensor arena = std::move(arenas_.back());
      arenas_.pop_back();
      return arena;
    }
  }
  at::Tensor arena = at::empty({placement_.bytes}, at::kByte);
  // Nothing comes of what kernels read behind a value, but it is memory that was never written.
  auto* base = arena.mutable_data_ptr<uint8_t>();
  for (const int64_t end : placement_.ends) std::memset(base + end, 0, kernels::kOverRead);
  return arena;
}

void Plan::give_back(at::Tensor arena) const {
  const std::lock_guard lock(mutex_);
  arenas_.push_back(std::move(arena));
}

std::vector<at::Tensor> Plan::run(std::span<const at::Tensor> inputs) const {
  std::vector<at::Tensor> outputs;
  for (const int64_t output : graph_.outputs) {
    outputs.push_back(make_output(shapes_[static_cast<size_t>(output)]));
  }
  if (empty_) return outputs;

  at::Tensor arena = take_arena();
  auto* base = arena.mutable_data_ptr<uint8_t>();
  std::vector<Buffer> buffers(graph_.values.size());
  for (size_t v = 0; v < buffers.size(); ++v) {
    if (placement_.offsets[v] >= 0) {
      buffers[v] = {base + placement_.offsets[v], true, placement_.pitches[v]};
    }
  }
  std::vector<at::Tensor> dense;  // keeps inputs alive that had to be copied
  for (size_t i = 0; i < inputs.size(); ++i) {
    const auto format = is_mask_[i] ? at::MemoryFormat::Contiguous
                                    : memory_format(static_cast<size_t>(inputs[i].dim()));
    const bool as_named = format != at::MemoryFormat::Contiguous && takes_any_layout_[i] &&
                          !inputs[i].is_contiguous(format);
    dense.push_back(inputs[i].contiguous(as_named ? at::MemoryFormat::Contiguous : format));
    // const_cast: steps only read their inputs.
    buffers[static_cast<size_t>(graph_.inputs[i])] = {
        const_cast<void*>(dense.back().const_data_ptr()), !as_named};
  }
  for (size_t i = 0; i < outputs.size(); ++i) {
    buffers[static_cast<size_t>(graph_.outputs[i])] = {outputs[i].mutable_data_ptr()};
  }
  std::vector<Buffer> step_inputs;
  for (size_t n = 0; n < steps_.size(); ++n) {
    const Node& node = graph_.nodes[n];
    step_inputs.clear();
    for (const int64_t input : node.inputs) {
      step_inputs.push_back(buffers[static_cast<size_t>(input)]);
    }
    const auto out = static_cast<size_t>(node.output);
    steps_[n]->run(step_inputs, buffers[out]);
    const Value& made = graph_.values[out];
    if (Recording* recording = Recording::active(); recording && !made.name.empty()) {
      recording->add(made.name, *made.qparams, shapes_[out], buffers[out]);
    }
  }
  give_back(std::move(arena));
  return outputs;
}

}  // namespace qatx::engine
