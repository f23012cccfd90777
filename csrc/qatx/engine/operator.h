#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "qatx/engine/graph.h"

namespace qatx::engine {

using Shape = std::vector<int64_t>;

// A tensor while a program runs. `data` holds codes (uint8_t), float32, indices (int64_t) or
// a mask (bool).
struct Buffer {
  void* data;
  // How images lie in memory: channels last, as all values of a program do, or first, as an input
  // may.
  bool channels_last = true;
  // From a row of the dimension that lies innermost (a pixel) to the next; 0: they follow one
  // another.
  int64_t pitch = 0;

  const uint8_t* codes() const { return static_cast<const uint8_t*>(data); }
  const int64_t* indices() const { return static_cast<const int64_t*>(data); }
  const bool* mask() const { return static_cast<const bool*>(data); }
  const float* floats() const { return static_cast<const float*>(data); }
};

// The part of an operator that depends on shapes. Immutable: many threads may run one step.
class Step {
 public:
  virtual ~Step() = default;
  virtual void run(std::span<const Buffer> inputs, Buffer output) const = 0;
};

// The part that does not: attributes checked, weights packed. It outlives its steps.
class Operator {
 public:
  virtual ~Operator() = default;
  // Throws c10::Error where the operator cannot take these shapes.
  virtual Shape output_shape(std::span<const Shape> inputs) const = 0;
  virtual std::unique_ptr<Step> plan(std::span<const Shape> inputs) const = 0;

  // An input of the output's size, whose memory the output may take: nothing of it is read once
  // something else is written there.
  virtual std::optional<size_t> in_place(std::span<const Shape> /*inputs*/) const {
    return std::nullopt;
  }

  // Whether it can write rows that lie apart.
  virtual bool writes_apart() const { return false; }
  // As plan, where the rows of the first input lie `pitch` apart; nullptr: it cannot read them.
  virtual std::unique_ptr<Step> plan_apart(std::span<const Shape> /*inputs*/,
                                           int64_t /*pitch*/) const {
    return nullptr;
  }
  // How far apart the rows of the first input are best read; 0: it does not matter.
  virtual int64_t best_pitch() const { return 0; }
  // Whether it only gives the rows of its input another shape, wherever they lie: it is in place.
  virtual bool passes_rows(std::span<const Shape> /*inputs*/) const { return false; }
  // Whether rows of the output consist of rows of all inputs in their order, and the codes of this
  // one, which has so many dimensions, stay as they are: it may be made there.
  virtual bool joins(size_t /*input*/, size_t /*dimensions*/) const { return false; }

  // Whether each of so many samples of the output comes of nothing but the same sample of those
  // inputs that `by_sample` names, and of the other inputs. Asked where the first dimension of
  // these inputs, and of the output, counts samples or a multiple of them, and nothing else in
  // their shapes depends on how many there are.
  virtual bool keeps_samples(std::span<const Shape> /*inputs*/,
                             const std::vector<bool>& /*by_sample*/, int64_t /*samples*/) const {
    return true;
  }

  // Of weights: what each run reads.
  virtual int64_t weight_bytes() const { return 0; }
  // Where they are kept, each uint8 of one dimension. A copy may take the place of each, until the
  // first step is planned.
  virtual std::vector<at::Tensor*> packed_weights() { return {}; }

  // Whether it holds the node's tensor "weight" in a form of its own, from which weight() makes the
  // tensor again, bit for bit: then the node need not keep it.
  virtual bool holds_weight() const { return false; }
  virtual at::Tensor weight() const { return {}; }
};

// Checks the node's attributes and makes its operator. Throws c10::Error that names the node.
std::unique_ptr<Operator> make_operator(const Graph& graph, const Node& node);

}  // namespace qatx::engine
