#include "qatx/engine/plan.h"

#include <ATen/ops/empty.h>
#include <c10/util/Exception.h>
#include <c10/util/accumulate.h>

#include <algorithm>
#include <cstring>
#include <optional>

#include "qatx/engine/operators/layout.h"
#include "qatx/engine/recording.h"
#include "qatx/kernels/window.h"

namespace qatx::engine {
namespace {

constexpr int64_t kAlignment = 64;

// Memory of a value, and of those that are computed in place from it.
struct Interval {
  std::vector<int64_t> values;
  int64_t bytes;
  int64_t first;  // the node that makes the first of them
  int64_t last;   // the last node that reads one
};

// Largest first, each at the lowest offset where it overlaps none that is alive at the same time.
int64_t place(std::vector<Interval> intervals, std::vector<int64_t>& offsets) {
  std::stable_sort(intervals.begin(), intervals.end(),
                   [](const Interval& a, const Interval& b) { return a.bytes > b.bytes; });
  std::vector<Interval> placed;
  int64_t end = 0;
  for (const Interval& interval : intervals) {
    std::vector<std::pair<int64_t, int64_t>> taken;
    for (const Interval& other : placed) {
      if (other.first <= interval.last && interval.first <= other.last) {
        const int64_t offset = offsets[static_cast<size_t>(other.values[0])];
        taken.emplace_back(offset, offset + other.bytes);
      }
    }
    std::sort(taken.begin(), taken.end());
    int64_t offset = 0;
    for (const auto& [from, to] : taken) {
      if (offset + interval.bytes <= from) break;
      offset = std::max(offset, to);
    }
    for (const int64_t value : interval.values) offsets[static_cast<size_t>(value)] = offset;
    placed.push_back(interval);
    end = std::max(end, offset + interval.bytes);
  }
  return end;
}

// The value in whose memory the node's output may lie: nothing else reads it then or later.
std::optional<int64_t> in_place_value(const Graph& graph, const Node& node, const Operator& op,
                                      const std::vector<int64_t>& last_use) {
  const auto input = op.in_place();
  if (!input) return std::nullopt;
  const int64_t value = node.inputs[*input];
  const bool once = std::count(node.inputs.begin(), node.inputs.end(), value) == 1;
  const bool last =
      &graph.nodes[static_cast<size_t>(last_use[static_cast<size_t>(value)])] == &node;
  return once && last ? std::optional(value) : std::nullopt;
}

at::Tensor make_output(const Shape& shape) {
  return at::empty(shape, at::TensorOptions(at::kFloat).memory_format(memory_format(shape.size())));
}

}  // namespace

Plan::Plan(const Graph& graph, std::span<const std::unique_ptr<Operator>> operators,
           std::span<const Shape> inputs)
    : graph_(graph), shapes_(graph.values.size()), offsets_(graph.values.size(), -1) {
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
  std::vector<int64_t> last_use(graph.values.size(), -1);
  for (size_t n = 0; n < graph.nodes.size(); ++n) {
    for (const int64_t input : graph.nodes[n].inputs) {
      last_use[static_cast<size_t>(input)] = static_cast<int64_t>(n);
    }
  }
  std::vector<Interval> intervals;
  std::vector<std::pair<size_t, int64_t>> placed;  // values and their bytes
  std::vector<int64_t> interval_of(graph.values.size(), -1);
  for (size_t n = 0; n < graph.nodes.size(); ++n) {
    const Node& node = graph.nodes[n];
    std::vector<Shape> node_inputs;
    for (const int64_t input : node.inputs) {
      node_inputs.push_back(shapes_[static_cast<size_t>(input)]);
      if (const int64_t interval = interval_of[static_cast<size_t>(input)]; interval >= 0) {
        intervals[static_cast<size_t>(interval)].last = static_cast<int64_t>(n);
      }
    }
    const auto out = static_cast<size_t>(node.output);
    shapes_[out] = operators[n]->output_shape(node_inputs);
    const int64_t numel = c10::multiply_integers(shapes_[out]);
    empty_ |= numel == 0;
    if (!empty_) steps_.push_back(operators[n]->plan(node_inputs));
    // Outputs are tensors of their own.
    if (std::find(graph.outputs.begin(), graph.outputs.end(), node.output) != graph.outputs.end()) {
      continue;
    }
    placed.emplace_back(out, numel * (graph.values[out].quantized() ? 1 : 4));
    const int64_t bytes = placed.back().second + kernels::kOverRead;
    const auto taken = in_place_value(graph, node, *operators[n], last_use);
    if (taken && interval_of[static_cast<size_t>(*taken)] >= 0) {
      interval_of[out] = interval_of[static_cast<size_t>(*taken)];
      intervals[static_cast<size_t>(interval_of[out])].values.push_back(node.output);
      continue;
    }
    interval_of[out] = static_cast<int64_t>(intervals.size());
    intervals.push_back({{node.output},
                         (bytes + kAlignment - 1) / kAlignment * kAlignment,
                         static_cast<int64_t>(n),
                         static_cast<int64_t>(n)});
  }
  arena_bytes_ = place(std::move(intervals), offsets_);
  for (const auto& [value, bytes] : placed) ends_.push_back(offsets_[value] + bytes);
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
  at::Tensor arena = at::empty({arena_bytes_}, at::kByte);
  // Nothing comes of what kernels read behind a value, but it is memory that was never written.
  auto* base = arena.mutable_data_ptr<uint8_t>();
  for (const int64_t end : ends_) std::memset(base + end, 0, kernels::kOverRead);
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
    if (offsets_[v] >= 0) buffers[v] = {base + offsets_[v]};
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
      recording->add(made.name, *made.qparams, shapes_[out], buffers[out].codes());
    }
  }
  give_back(std::move(arena));
  return outputs;
}

}  // namespace qatx::engine
