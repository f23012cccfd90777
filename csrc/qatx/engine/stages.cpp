#include "qatx/engine/stages.h"

#include <c10/util/Exception.h>
#include <c10/util/accumulate.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <cstring>

#include "qatx/engine/placement.h"

namespace qatx::engine {
namespace {

constexpr size_t kLongestStage = 256;
// Of the cache. The rest is for copies of padded lines and weights that pass.
constexpr double kForValues = 0.75;

size_t index(int64_t i) { return static_cast<size_t>(i); }

// What the batch of a program is, and which values and nodes follow it sample by sample.
class Batch {
 public:
  Batch(const Graph& graph, std::span<const std::unique_ptr<Operator>> operators,
        const std::vector<Shape>& shapes)
      : divided_(graph.values.size(), false), keeps_(graph.nodes.size(), false) {
    // The largest input has the samples; others may have one for each of them, or be for all.
    int64_t largest = 0;
    for (const int64_t input : graph.inputs) {
      const Shape& shape = shapes[index(input)];
      const int64_t numel = c10::multiply_integers(shape);
      if (shape.size() >= 2 && numel > largest) {
        largest = numel;
        size_ = shape[0];
      }
    }
    if (size_ > 1 && !find_divided(graph, operators, shapes)) size_ = 1;
  }

  int64_t size() const { return size_; }
  // Consists of samples, one after the other.
  bool is_divided(int64_t value) const { return divided_[index(value)]; }
  // Samples of the node's output come of the same samples of its inputs.
  bool is_kept_by(size_t node) const { return keeps_[node]; }
  const std::vector<bool>& divided() const { return divided_; }

 private:
  // By comparing all shapes with those that one sample would have. False where the program takes no
  // other batch than this one.
  bool find_divided(const Graph& graph, std::span<const std::unique_ptr<Operator>> operators,
                    const std::vector<Shape>& shapes) {
    std::vector<Shape> single(graph.values.size());
    const auto compare = [&](int64_t value) {
      Shape many = single[index(value)];
      if (many.size() < 2) return;
      many[0] *= size_;
      divided_[index(value)] = many == shapes[index(value)];
    };
    for (const int64_t input : graph.inputs) {
      Shape& shape = single[index(input)];
      shape = shapes[index(input)];
      if (shape.size() >= 2 && shape[0] == size_) shape[0] = 1;
      compare(input);
    }
    for (size_t n = 0; n < graph.nodes.size(); ++n) {
      const Node& node = graph.nodes[n];
      const auto inputs = input_shapes(node, single);
      try {
        single[index(node.output)] = operators[n]->output_shape(inputs);
      } catch (const c10::Error&) {
        return false;
      }
      compare(node.output);
      std::vector<bool> by_sample;
      bool all_known = is_divided(node.output);
      for (const int64_t input : node.inputs) {
        by_sample.push_back(is_divided(input));
        all_known &= by_sample.back() || single[index(input)] == shapes[index(input)];
      }
      keeps_[n] =
          all_known && operators[n]->keeps_samples(input_shapes(node, shapes), by_sample, size_);
    }
    return true;
  }

  int64_t size_ = 1;
  std::vector<bool> divided_;
  std::vector<bool> keeps_;
};

// Costs are bytes that come from or go to where the second cache ends.
class Planner {
 public:
  Planner(const Graph& graph, std::span<const std::unique_ptr<Operator>> operators,
          const std::vector<Shape>& shapes, int64_t cache_bytes)
      : graph_(graph),
        operators_(operators),
        shapes_(shapes),
        cache_bytes_(static_cast<double>(cache_bytes) * kForValues),
        batch_(graph, operators, shapes),
        last_use_(graph.values.size(), 0) {
    for (size_t n = 0; n < graph.nodes.size(); ++n) {
      for (const int64_t input : graph.nodes[n].inputs) last_use_[index(input)] = n;
    }
    for (const int64_t output : graph.outputs) last_use_[index(output)] = graph.nodes.size();
    for (int64_t parts = 2; parts <= batch_.size(); ++parts) {
      if (batch_.size() % parts == 0) divisors_.push_back(parts);
    }
  }

  // The cheapest way to each node, one after the other.
  Stages plan() {
    const size_t nodes = graph_.nodes.size();
    std::vector<Best> best(nodes + 1);
    for (size_t end = 1; end <= nodes; ++end) {
      best[end] = {best[end - 1].cost + cost_of_whole(end - 1), {end - 1, end, 1}};
      extend_back(end, best);
    }
    Stages stages{{}, batch_.divided()};
    for (size_t end = nodes; end > 0;) {
      const Stage& stage = best[end].stage;
      Stage* next = stages.stages.empty() ? nullptr : &stages.stages.back();
      if (next && next->parts == 1 && stage.parts == 1) {
        next->begin = stage.begin;
      } else {
        stages.stages.push_back(stage);
      }
      end = stage.begin;
    }
    std::reverse(stages.stages.begin(), stages.stages.end());
    return stages;
  }

 private:
  struct Best {
    double cost = 0;
    Stage stage{};
  };

  double bytes(int64_t value) const {
    return static_cast<double>(c10::multiply_integers(shapes_[index(value)]) *
                               graph_.values[index(value)].element_bytes());
  }

  double weights(size_t n) const { return static_cast<double>(operators_[n]->weight_bytes()); }

  // What a byte costs that was used last so many bytes ago: what is further away is further down,
  // and its page is less likely to be known.
  double price(double distance) const {
    return distance <= cache_bytes_ ? 0 : std::min(std::log2(distance / cache_bytes_) / 2, 3.0);
  }

  // Weights are read in one go, which prefetchers see. Those that stay in the cache still have to
  // come from there, for fewer rows each time.
  static constexpr double kWeightPrice = 0.75;
  static constexpr double kNearWeightPrice = 0.25;

  // Of what a stage writes for later ones: its lines are fetched, written back, and come in runs of
  // a part (a U-Net's skip connections made this plain).
  static constexpr double kLeaving = 3;

  // Of calling a step.
  double call() const { return cache_bytes_ / 64; }

  double cost_of_whole(size_t n) const {
    double touched = bytes(graph_.nodes[n].output);
    for (const int64_t input : graph_.nodes[n].inputs) touched += bytes(input);
    return touched * price(touched) + weights(n) * kWeightPrice + call();
  }

  // Tries all stages of several parts that end with node `end` - 1.
  void extend_back(size_t end, std::vector<Best>& best) const {
    std::vector<int64_t> read;  // in the stage, made before it
    double read_bytes = 0;
    double made_bytes = 0;    // and read behind the stage
    double inner_bytes = 0;   // made and read in it
    double shared_bytes = 0;  // read by all parts
    double most_bytes = 0;    // alive at once, of what is divided
    double all_weights = 0;
    for (size_t begin = end; begin-- > 0 && end - begin <= kLongestStage;) {
      if (!batch_.is_kept_by(begin)) return;
      const Node& node = graph_.nodes[begin];
      const auto found = std::find(read.begin(), read.end(), node.output);
      if (found != read.end()) {
        read.erase(found);
        read_bytes -= bytes(node.output);
      }
      (last_use_[index(node.output)] < end ? inner_bytes : made_bytes) += bytes(node.output);
      for (const int64_t input : node.inputs) {
        if (std::find(read.begin(), read.end(), input) != read.end()) continue;
        read.push_back(input);
        if (batch_.is_divided(input)) {
          read_bytes += bytes(input);
        } else {
          shared_bytes += bytes(input);
        }
      }
      most_bytes = std::max(most_bytes, read_bytes + bytes(node.output));
      all_weights += weights(begin);

      const double outer = read_bytes + made_bytes * kLeaving;
      for (const int64_t divisor : divisors_) {
        const auto parts = static_cast<double>(divisor);
        const double alive = most_bytes / parts + shared_bytes;
        const bool weights_stay = all_weights + alive <= cache_bytes_;
        const double cost =
            outer * price(outer) + 2 * inner_bytes * price(alive) +
            (all_weights + shared_bytes) *
                (kWeightPrice + (parts - 1) * (weights_stay ? kNearWeightPrice : kWeightPrice)) +
            static_cast<double>(end - begin) * parts * call();
        if (best[begin].cost + cost < best[end].cost) {
          best[end] = {best[begin].cost + cost, {begin, end, divisor}};
        }
      }
    }
  }

  const Graph& graph_;
  std::span<const std::unique_ptr<Operator>> operators_;
  const std::vector<Shape>& shapes_;
  double cache_bytes_;
  Batch batch_;
  std::vector<size_t> last_use_;   // by value: the last node that reads it, or their number
  std::vector<int64_t> divisors_;  // of the batch, but for 1
};

}  // namespace

Stages make_stages(const Graph& graph, std::span<const std::unique_ptr<Operator>> operators,
                   const std::vector<Shape>& shapes, int64_t cache_bytes) {
  return Planner(graph, operators, shapes, cache_bytes).plan();
}

int64_t second_cache_bytes() {
  constexpr const char* kVariable = "QATX_L2_BYTES";
  if (const char* given = std::getenv(kVariable); given && *given) {
    int64_t bytes = 0;
    const char* end = given + std::strlen(given);
    const auto [rest, error] = std::from_chars(given, end, bytes);
    TORCH_CHECK_VALUE(error == std::errc{} && rest == end && bytes > 0, kVariable,
                      " must be a number of bytes, at least 1, got '", given, "'");
    return bytes;
  }
  constexpr int64_t kUnknown = 1 << 20;
#ifdef _SC_LEVEL2_CACHE_SIZE
  if (const long bytes = sysconf(_SC_LEVEL2_CACHE_SIZE); bytes > 0) return bytes;
#endif
  return kUnknown;
}

}  // namespace qatx::engine
