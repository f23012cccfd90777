#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "qatx/engine/graph.h"

namespace qatx::engine {

// Reads and checks what a node holds: a program may come from a damaged or hostile file. Every
// function throws c10::Error that names the node and the attribute.
class NodeReader {
 public:
  NodeReader(const Graph& graph, const Node& node) : graph_(graph), node_(node) {}

  const std::string& name() const { return node_.name; }
  size_t input_count() const { return node_.inputs.size(); }
  void check_input_count(size_t least, size_t most) const;
  const Value& input_value(size_t i) const;
  // Quantization parameters of an input that must be quantized.
  const kernels::QParams& input(size_t i) const;
  const Value& output() const;
  // Both sides of an operator that moves codes and does not change them.
  void check_same_qparams() const;

  bool has_ints(std::string_view key) const;
  bool has_floats(std::string_view key) const;
  bool has_tensor(std::string_view key) const;
  // `count` numbers, each in [least, most].
  std::vector<int64_t> ints(std::string_view key, size_t count, int64_t least, int64_t most) const;
  std::vector<int64_t> int_list(std::string_view key) const;
  std::vector<double> float_list(std::string_view key) const;
  // A contiguous CPU tensor of this dtype and number of dimensions, no size of which is zero.
  at::Tensor tensor(std::string_view key, at::ScalarType dtype, int64_t dim) const;

  // Attribute "clamp", [min, max].
  std::optional<std::pair<double, double>> clamp() const;

 private:
  const Graph& graph_;
  const Node& node_;
};

}  // namespace qatx::engine
