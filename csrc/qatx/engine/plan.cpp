#include "qatx/engine/plan.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <c10/util/Exception.h>
#include <c10/util/accumulate.h>

#include <algorithm>
#include <cstring>

#include "qatx/engine/memory.h"
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
  stages_ = make_stages(graph, operators, shapes_, second_cache_bytes());
  placement_ = place_values(graph, operators, shapes_, stages_.stages);
  wholes_ = std::make_unique<Arenas>(placement_.whole);
  parts_ = std::make_unique<Arenas>(placement_.part);
  plan_steps(operators);
}

void Plan::plan_steps(std::span<const std::unique_ptr<Operator>> operators) {
  for (const Stage& stage : stages_.stages) {
    for (size_t n = stage.begin; n < stage.end; ++n) {
      const Node& node = graph_.nodes[n];
      const auto shapes = shapes_in(stage, node);
      const int64_t pitch = placement_.pitches[static_cast<size_t>(node.inputs[0])];
      const bool as_usual = pitch == 0 || operators[n]->joins(0, shapes[0].size()) ||
                            operators[n]->passes_rows(shapes);
      steps_.push_back(as_usual ? operators[n]->plan(shapes)
                                : operators[n]->plan_apart(shapes, pitch));
    }
  }
}

// Of the inputs of a node, or of a part of them.
std::vector<Shape> Plan::shapes_in(const Stage& stage, const Node& node) const {
  std::vector<Shape> shapes = input_shapes(node, shapes_);
  for (size_t i = 0; stage.parts > 1 && i < shapes.size(); ++i) {
    if (stages_.divided[static_cast<size_t>(node.inputs[i])]) shapes[i][0] /= stage.parts;
  }
  return shapes;
}

at::Tensor Plan::Arenas::take() const {
  {
    const std::lock_guard lock(mutex_);
    if (!free_.empty()) {
      at::Tensor memory = std::move(free_.back());
      free_.pop_back();
      return memory;
    }
  }
  at::Tensor memory = allocate(arena_.bytes, 512 << 10);
  // Nothing comes of what kernels read behind a value, but it is memory that was never written.
  auto* base = memory.mutable_data_ptr<uint8_t>();
  for (const int64_t end : arena_.ends) std::memset(base + end, 0, kernels::kOverRead);
  return memory;
}

void Plan::Arenas::give_back(at::Tensor memory) const {
  const std::lock_guard lock(mutex_);
  free_.push_back(std::move(memory));
}

std::vector<at::Tensor> Plan::run(std::span<const at::Tensor> inputs) const {
  std::vector<at::Tensor> outputs;
  for (const int64_t output : graph_.outputs) {
    outputs.push_back(make_output(shapes_[static_cast<size_t>(output)]));
  }
  if (empty_) return outputs;

  at::Tensor memory = wholes_->take();
  auto* base = memory.mutable_data_ptr<uint8_t>();
  std::vector<Buffer> buffers(graph_.values.size());
  for (size_t v = 0; v < buffers.size(); ++v) {
    if (placement_.offsets[v] >= 0 && !placement_.in_part[v]) {
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
  for (const Stage& stage : stages_.stages) run_stage(stage, buffers);
  wholes_->give_back(std::move(memory));
  return outputs;
}

void Plan::run_stage(const Stage& stage, const std::vector<Buffer>& wholes) const {
  std::vector<at::Tensor> recorded;
  if (Recording* recording = Recording::active()) {
    for (size_t n = stage.begin; n < stage.end; ++n) {
      const auto out = static_cast<size_t>(graph_.nodes[n].output);
      const Value& made = graph_.values[out];
      recorded.push_back(made.name.empty()
                             ? at::Tensor()
                             : recording->add(made.name, *made.qparams, shapes_[out]));
    }
  }
  if (stage.parts == 1) {
    run_part(stage, 0, wholes, recorded);
    return;
  }
  const auto run_parts = [&](int64_t begin, int64_t end) {
    at::Tensor memory = parts_->take();
    std::vector<Buffer> buffers = wholes;
    for (int64_t part = begin; part < end; ++part) {
      set_part(stage, part, wholes, memory.mutable_data_ptr<uint8_t>(), buffers);
      run_part(stage, part, buffers, recorded);
    }
    parts_->give_back(std::move(memory));
  };
  // A thread that has parts of its own meets the others at the end only, and all that it reads is
  // in its own caches; but all have to have the same work.
  const int64_t threads = at::get_num_threads();
  if (stage.parts % threads == 0 || stage.parts >= 8 * threads) {
    at::parallel_for(0, stage.parts, 1, run_parts);
  } else {
    run_parts(0, stage.parts);
  }
}

void Plan::set_part(const Stage& stage, int64_t part, const std::vector<Buffer>& wholes,
                    uint8_t* memory, std::vector<Buffer>& buffers) const {
  const auto set = [&](int64_t value) {
    const auto v = static_cast<size_t>(value);
    if (placement_.in_part[v]) {
      buffers[v] = {memory + placement_.offsets[v], true, placement_.pitches[v]};
    } else if (stages_.divided[v]) {
      const int64_t rows = c10::multiply_integers(shapes_[v]) / row_size(shapes_[v]) / stage.parts;
      const int64_t pitch = wholes[v].pitch == 0 ? row_size(shapes_[v]) : wholes[v].pitch;
      buffers[v].data = static_cast<uint8_t*>(wholes[v].data) +
                        part * rows * pitch * graph_.values[v].element_bytes();
    }
  };
  for (size_t n = stage.begin; n < stage.end; ++n) {
    for (const int64_t input : graph_.nodes[n].inputs) set(input);
    set(graph_.nodes[n].output);
  }
}

void Plan::run_part(const Stage& stage, int64_t part, const std::vector<Buffer>& buffers,
                    std::span<const at::Tensor> recorded) const {
  std::vector<Buffer> inputs;
  for (size_t n = stage.begin; n < stage.end; ++n) {
    const Node& node = graph_.nodes[n];
    inputs.clear();
    for (const int64_t input : node.inputs) inputs.push_back(buffers[static_cast<size_t>(input)]);
    const auto out = static_cast<size_t>(node.output);
    steps_[n]->run(inputs, buffers[out]);
    if (!recorded.empty() && recorded[n - stage.begin].defined()) {
      const at::Tensor& whole = recorded[n - stage.begin];
      const int64_t samples = whole.dim() == 0 ? 0 : whole.size(0) / stage.parts;
      write_floats(*graph_.values[out].qparams, buffers[out],
                   stage.parts == 1 ? whole : whole.narrow(0, part * samples, samples));
    }
  }
}

}  // namespace qatx::engine
