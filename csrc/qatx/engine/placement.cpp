#include "qatx/engine/placement.h"

#include <c10/util/accumulate.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "qatx/engine/operators/layout.h"
#include "qatx/kernels/window.h"

namespace qatx::engine {
namespace {

constexpr int64_t kAlignment = 64;

// Memory of a value and of those that lie in it.
struct Interval {
  std::vector<std::pair<int64_t, int64_t>> values;  // and where they begin in it
  int64_t bytes;
  int64_t first;  // the node that makes the first of them
  int64_t last;   // the last node that reads one
};

class Placer {
 public:
  Placer(const Graph& graph, std::span<const std::unique_ptr<Operator>> operators,
         const std::vector<Shape>& shapes, const std::vector<Stage>& stages)
      : graph_(graph),
        operators_(operators),
        shapes_(shapes),
        stages_(stages),
        last_use_(graph.values.size(), -1),
        whole_(graph.values.size(), -1),
        column_(graph.values.size(), 0),
        pitch_(graph.values.size(), 0),
        maker_(graph.values.size(), 0) {
    for (size_t n = 0; n < graph.nodes.size(); ++n) {
      maker_[index(graph.nodes[n].output)] = n;
      for (const int64_t input : graph.nodes[n].inputs) {
        last_use_[index(input)] = static_cast<int64_t>(n);
      }
    }
  }

  Placement place() {
    for (size_t n = 0; n < graph_.nodes.size(); ++n) join_inputs(n);
    for (size_t n = 0; n < graph_.nodes.size(); ++n) spread_input(n);
    std::vector<Interval> intervals;
    std::vector<int64_t> interval_of(graph_.values.size(), -1);
    for (size_t n = 0; n < graph_.nodes.size(); ++n) {
      const Node& node = graph_.nodes[n];
      const auto now = static_cast<int64_t>(n);
      for (const int64_t input : node.inputs) {
        if (const int64_t i = interval_of[index(input)]; i >= 0) intervals[index(i)].last = now;
      }
      if (is_output(node.output)) continue;  // a tensor of its own
      const int64_t whole = whole_[index(node.output)];
      int64_t& own = interval_of[index(node.output)];
      if (whole >= 0) {
        int64_t& shared = interval_of[index(whole)];
        if (shared < 0) {
          shared = static_cast<int64_t>(intervals.size());
          intervals.push_back({{{whole, 0}}, bytes(whole), now, now});
        }
        own = shared;
        intervals[index(own)].values.emplace_back(node.output, column_[index(node.output)]);
      } else if (const int64_t taken = taken_in_place(n); taken >= 0 && own < 0) {
        own = interval_of[index(taken)];
        intervals[index(own)].values.emplace_back(node.output, 0);
      } else if (own < 0) {
        own = static_cast<int64_t>(intervals.size());
        intervals.push_back({{{node.output, 0}}, bytes(node.output), now, now});
      }
    }
    return assign(intervals);
  }

 private:
  static size_t index(int64_t i) { return static_cast<size_t>(i); }

  bool is_output(int64_t value) const {
    return std::count(graph_.outputs.begin(), graph_.outputs.end(), value) > 0;
  }
  bool is_in_arena(int64_t value) const {
    return !is_output(value) && std::count(graph_.inputs.begin(), graph_.inputs.end(), value) == 0;
  }
  int64_t bytes(int64_t value) const {
    const int64_t elements = c10::multiply_integers(shapes_[index(value)]);
    const int64_t pitch = pitch_[index(value)];
    return (pitch == 0 ? elements : elements / columns(value) * pitch) *
           graph_.values[index(value)].element_bytes();
  }
  // Of the dimension that lies innermost in memory.
  int64_t columns(int64_t value) const { return row_size(shapes_[index(value)]); }

  // Finds the inputs of a node that can be made in its output.
  void join_inputs(size_t n) {
    const Node& node = graph_.nodes[n];
    if (!is_in_arena(node.output)) return;
    int64_t column = 0;
    for (size_t i = 0; i < node.inputs.size(); ++i) {
      const int64_t value = node.inputs[i];
      if (operators_[n]->joins(i, shapes_[index(value)].size()) && is_free(value) &&
          operators_[maker_[index(value)]]->writes_apart() &&
          is_read_apart(value, columns(node.output), n)) {
        whole_[index(value)] = node.output;
        column_[index(value)] = column;
      }
      if (!shapes_[index(value)].empty()) column += columns(value);
    }
  }

  // Has the rows of the first input of a node as far apart as it would like to read them, if all
  // that make, pass and read them can.
  void spread_input(size_t n) {
    int64_t value = graph_.nodes[n].inputs[0];
    const int64_t pitch = operators_[n]->best_pitch();
    if (pitch == 0 || pitch <= columns(value)) return;
    std::vector<int64_t> values;
    for (std::optional<size_t> passed;;) {
      if (!is_free(value) || !is_read_apart(value, pitch, passed)) return;
      values.push_back(value);
      passed = maker_[index(value)];
      if (operators_[*passed]->writes_apart()) break;
      const Node& node = graph_.nodes[*passed];
      if (!operators_[*passed]->passes_rows(input_shapes(node, shapes_))) return;
      value = node.inputs[0];
      if (last_use_[index(value)] != static_cast<int64_t>(*passed)) return;
    }
    for (const int64_t v : values) pitch_[index(v)] = pitch;
  }

  // Whether it may lie where it is best.
  bool is_free(int64_t value) const {
    return is_in_arena(value) && whole_[index(value)] < 0 && pitch_[index(value)] == 0;
  }

  // Whether all that read a value, but for node n, can have its rows so far apart.
  bool is_read_apart(int64_t value, int64_t pitch, std::optional<size_t> n) const {
    for (size_t m = 0; m < graph_.nodes.size(); ++m) {
      const Node& node = graph_.nodes[m];
      const auto uses = std::count(node.inputs.begin(), node.inputs.end(), value);
      if (uses == 0) continue;
      if (uses > 1) return false;
      if (m != n && (node.inputs[0] != value ||
                     !operators_[m]->plan_apart(input_shapes(node, shapes_), pitch))) {
        return false;
      }
    }
    return true;
  }

  // The value in whose memory a node's output may lie: nothing else reads it then or later.
  int64_t taken_in_place(size_t n) const {
    const Node& node = graph_.nodes[n];
    const auto input = operators_[n]->in_place(input_shapes(node, shapes_));
    if (!input) return -1;
    const int64_t value = node.inputs[*input];
    const bool once = std::count(node.inputs.begin(), node.inputs.end(), value) == 1;
    const bool last = last_use_[index(value)] == static_cast<int64_t>(n);
    const bool alike = pitch_[index(value)] == pitch_[index(node.output)];
    return once && last && alike && is_in_arena(value) && whole_[index(value)] < 0 ? value : -1;
  }

  const Stage& stage_of(int64_t node) const {
    return *std::upper_bound(
        stages_.begin(), stages_.end(), node,
        [](int64_t n, const Stage& stage) { return n < static_cast<int64_t>(stage.end); });
  }

  Placement assign(const std::vector<Interval>& intervals) const {
    Placement placement;
    placement.offsets.assign(graph_.values.size(), -1);
    placement.pitches.assign(graph_.values.size(), 0);
    placement.in_part.assign(graph_.values.size(), false);
    std::vector<Interval> wholes;
    std::vector<Interval> parts;
    for (Interval interval : intervals) {
      const Stage& first = stage_of(interval.first);
      const Stage& last = stage_of(interval.last);
      const bool in_part = first.begin == last.begin && first.parts > 1;
      for (const auto& [value, begin] : interval.values) {
        const int64_t whole = whole_[index(value)];
        placement.pitches[index(value)] = whole >= 0 ? columns(whole) : pitch_[index(value)];
        placement.in_part[index(value)] = in_part;
      }
      if (in_part) {
        interval.bytes /= first.parts;
        parts.push_back(std::move(interval));
      } else {  // a stage of parts comes back to its first node after its last one
        if (first.parts > 1) interval.first = static_cast<int64_t>(first.begin);
        if (last.parts > 1) interval.last = static_cast<int64_t>(last.end) - 1;
        wholes.push_back(std::move(interval));
      }
    }
    placement.whole = assign(std::move(wholes), placement.offsets);
    placement.part = assign(std::move(parts), placement.offsets);
    return placement;
  }

  // Largest first, each at the lowest offset where it overlaps none that is alive at the same time.
  static Arena assign(std::vector<Interval> intervals, std::vector<int64_t>& offsets) {
    Arena arena;
    std::stable_sort(intervals.begin(), intervals.end(),
                     [](const Interval& a, const Interval& b) { return a.bytes > b.bytes; });
    struct Placed {
      int64_t from;
      int64_t to;
      int64_t first;
      int64_t last;
    };
    std::vector<Placed> all;
    for (const Interval& interval : intervals) {
      std::vector<std::pair<int64_t, int64_t>> taken;
      for (const Placed& other : all) {
        if (other.first <= interval.last && interval.first <= other.last) {
          taken.emplace_back(other.from, other.to);
        }
      }
      std::sort(taken.begin(), taken.end());
      const int64_t room =
          (interval.bytes + kernels::kOverRead + kAlignment - 1) / kAlignment * kAlignment;
      int64_t offset = 0;
      for (const auto& [from, to] : taken) {
        if (offset + room <= from) break;
        offset = std::max(offset, to);
      }
      for (const auto& [value, begin] : interval.values) offsets[index(value)] = offset + begin;
      all.push_back({offset, offset + room, interval.first, interval.last});
      arena.ends.push_back(offset + interval.bytes);
      arena.bytes = std::max(arena.bytes, offset + room);
    }
    return arena;
  }

  const Graph& graph_;
  std::span<const std::unique_ptr<Operator>> operators_;
  const std::vector<Shape>& shapes_;
  const std::vector<Stage>& stages_;
  std::vector<int64_t> last_use_;  // by value: the last node that reads it
  std::vector<int64_t> whole_;     // by value: the one whose rows it is a part of; -1: none
  std::vector<int64_t> column_;    // by value: where it begins in them
  std::vector<int64_t> pitch_;     // by value: how far apart its own rows lie; 0: not apart
  std::vector<size_t> maker_;      // by value: the node
};

}  // namespace

std::vector<Shape> input_shapes(const Node& node, const std::vector<Shape>& shapes) {
  std::vector<Shape> inputs;
  for (const int64_t input : node.inputs) inputs.push_back(shapes[static_cast<size_t>(input)]);
  return inputs;
}

Placement place_values(const Graph& graph, std::span<const std::unique_ptr<Operator>> operators,
                       const std::vector<Shape>& shapes, const std::vector<Stage>& stages) {
  return Placer(graph, operators, shapes, stages).place();
}

}  // namespace qatx::engine
