#include "qatx/engine/stages.h"

#include <ATen/Parallel.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/randn.h>

#include <cstdlib>

#include "graph_testing.h"
#include "qatx/engine/program.h"
#include "qatx/engine/recording.h"

namespace qatx::engine {
namespace {

using testing::same_bits;

constexpr int64_t kHuge = int64_t{1} << 40;

// What the plans that are made while it lives take for the size of the cache.
class CacheBytes {
 public:
  explicit CacheBytes(const std::string& bytes) { setenv("QATX_L2_BYTES", bytes.c_str(), 1); }
  ~CacheBytes() { unsetenv("QATX_L2_BYTES"); }
  CacheBytes(const CacheBytes&) = delete;
  CacheBytes& operator=(const CacheBytes&) = delete;
};

std::vector<at::Tensor> run(const Graph& graph, int64_t cache_bytes,
                            const std::vector<at::Tensor>& inputs) {
  const CacheBytes bytes(std::to_string(cache_bytes));
  return Program(graph).run(inputs);
}

// Convolutions of 4 channels, one after the other, and a linear layer at the end.
Graph network(int convolutions) {
  Graph graph;
  int64_t value = quantize(graph, add_input(graph), unit_qparams());
  for (int i = 0; i < convolutions; ++i) {
    Node conv = conv2d_node();
    conv.inputs = {value};
    conv.tensors["weight_scale"] = full({4}, 0.02);
    value = add_node(graph, conv, unit_qparams());
    graph.values.back().name = "conv" + std::to_string(i);
  }
  Node flat = reshape_node({-2, -1});
  flat.inputs = {value};
  value = add_node(graph, flat, unit_qparams());
  graph.outputs = {dequantize(graph, value)};
  return graph;
}

// Quantizes a result again and again: so much to keep in the cache makes parts worth while.
void add_work(Graph& graph) {
  for (int i = 0; i < 8; ++i) {
    graph.outputs[0] = dequantize(graph, quantize(graph, graph.outputs[0], unit_qparams()));
  }
}

const Shape kImages{24, 4, 40, 40};  // 6,400 elements each
constexpr int64_t kSmall = 50000;

Stages stages_of(const Graph& graph, const std::vector<Shape>& inputs, int64_t cache_bytes) {
  const Operators operators(graph, inputs);
  return make_stages(graph, operators.all, operators.shapes, cache_bytes);
}

int64_t most_parts(const Stages& stages) {
  int64_t most = 0;
  for (const Stage& stage : stages.stages) most = std::max(most, stage.parts);
  return most;
}

TEST(StagesTest, AllNodesInTheirOrder) {
  const Graph graph = network(12);
  for (const int64_t bytes : {int64_t{1}, int64_t{500}, int64_t{20000}, kSmall, kHuge}) {
    size_t next = 0;
    for (const Stage& stage : stages_of(graph, {kImages}, bytes).stages) {
      EXPECT_EQ(stage.begin, next);
      EXPECT_GT(stage.end, stage.begin);
      EXPECT_EQ(kImages[0] % stage.parts, 0);
      next = stage.end;
    }
    EXPECT_EQ(next, graph.nodes.size());
  }
}

TEST(StagesTest, PartsFitTheCache) {
  const Graph graph = network(12);
  EXPECT_EQ(most_parts(stages_of(graph, {kImages}, kHuge)), 1);
  // How many depends on the size of packed weights, which each instruction set has its own of.
  const int64_t few = most_parts(stages_of(graph, {kImages}, 2 * kSmall));
  EXPECT_GT(few, 1);
  EXPECT_GE(most_parts(stages_of(graph, {kImages}, kSmall)), few);
  EXPECT_EQ(most_parts(stages_of(graph, {{1, 4, 90, 90}}, kSmall)), 1);
}

TEST(StagesTest, WeightsAreReadForEachPart) {
  // One layer gains nothing.
  EXPECT_EQ(most_parts(stages_of(single_node_graph(linear_node(), unit_qparams()), {{64, 6}}, 100)),
            1);
}

TEST(StagesTest, ABatchThatIsBuiltInIsNotDivided) {
  Graph graph = network(12);
  ASSERT_GT(most_parts(stages_of(graph, {kImages}, kSmall)), 1);
  graph.nodes[13].ints["steps"].clear();
  add_move(graph.nodes[13].ints["steps"], MoveKind::reshape, {24, 6400});
  EXPECT_EQ(most_parts(stages_of(graph, {kImages}, kSmall)), 1);
}

// Whatever mixes samples is computed for all of them at once.
TEST(StagesTest, WhatMixesSamplesIsNotDivided) {
  constexpr int64_t kSamples = 6;
  const auto q = unit_qparams();
  const auto join = [&] {
    Graph graph;
    const int64_t a = quantize(graph, add_input(graph), q);
    const int64_t b = quantize(graph, add_input(graph), q);
    const int64_t all =
        add_node(graph, {.op = "cat", .name = "join", .inputs = {a, b}, .ints = {{"dim", {0}}}}, q);
    graph.outputs = {dequantize(graph, all)};
    return graph;
  };
  // [N, 4] -> [4, N] -> [N, 4]: another order of the same shape.
  const auto move = [&] {
    Node node{.op = "move", .name = "mix"};
    add_move(node.ints["steps"], MoveKind::permute, {1, 0});
    add_move(node.ints["steps"], MoveKind::reshape, {-1, 4});
    return single_node_graph(node, q);
  };
  const auto add = [&] { return single_node_graph({.op = "add", .name = "sum"}, q, 2); };
  const auto pad = [&] {
    return single_node_graph(
        {.op = "pad", .name = "turn", .ints = {{"pads", {0, 0, -1, 1}}, {"mode", {3}}}}, q);
  };
  // x: [N, 2 * M * 4], as [2 * N, M, 4].
  const auto masked = [&](int64_t m) {
    Graph graph;
    Node node{.op = "move", .name = "heads", .inputs = {add_input(graph)}};
    add_move(node.ints["steps"], MoveKind::reshape, {-1, m, 4});
    const int64_t x = add_node(graph, node);
    const int64_t mask = add_input(graph);
    const int64_t y = add_node(graph, {.op = "softmax", .name = "softmax", .inputs = {x, mask}});
    graph.outputs = {y};
    return graph;
  };
  std::vector<std::pair<Graph, std::vector<Shape>>> cases{
      {join(), {{kSamples, 4}, {kSamples, 4}}},
      {move(), {{kSamples, 4}}},
      {add(), {{kSamples, kSamples, 3}, {kSamples, 3}}},
      {add(), {{kSamples, kSamples}, {kSamples}}},
      {pad(), {{kSamples, 4}}},
      {masked(kSamples), {{kSamples, 8 * kSamples}, {kSamples, 4}}},
      {masked(3), {{kSamples, 24}, {kSamples, 3, 4}}},
      {masked(3), {{kSamples, 24}, {kSamples, 2, 3, 4}}},
      {masked(3), {{kSamples, 24}, {kSamples, 1, 1, 4}}},
  };
  for (size_t i = 0; i < cases.size(); ++i) {
    SCOPED_TRACE(i);
    auto& [graph, shapes] = cases[i];
    add_work(graph);
    std::vector<at::Tensor> inputs;
    for (const Shape& shape : shapes) inputs.push_back(at::randn(shape));
    for (const int64_t bytes : {1, 8, 30, 60, 100, 200}) {
      EXPECT_TRUE(same_bits(run(graph, bytes, inputs)[0], run(graph, kHuge, inputs)[0])) << bytes;
    }
  }
}

TEST(StagesTest, TheSameForAnyThreadsAndParts) {
  const Graph graph = network(12);
  const at::Tensor x = at::randn(kImages);
  const at::Tensor expected = run(graph, kHuge, {x})[0];
  const int before = at::get_num_threads();
  for (const int threads : {1, 2, 3, 5}) {
    at::set_num_threads(threads);
    for (const int64_t bytes : {kSmall / 2, kSmall, 2 * kSmall}) {
      EXPECT_GT(most_parts(stages_of(graph, {kImages}, bytes)), 1);
      EXPECT_TRUE(same_bits(run(graph, bytes, {x})[0], expected)) << threads << " " << bytes;
    }
  }
  at::set_num_threads(before);
}

TEST(StagesTest, PartsAreRecordedAsAWhole) {
  const Graph graph = network(12);
  const at::Tensor x = at::randn(kImages);
  const auto record = [&](int64_t bytes) {
    const Recording recording;
    run(graph, bytes, {x});
    return recording.entries();
  };
  const auto whole = record(kHuge);
  const auto parts = record(kSmall);
  ASSERT_GT(most_parts(stages_of(graph, {kImages}, kSmall)), 1);
  ASSERT_EQ(whole.size(), 12u);
  ASSERT_EQ(parts.size(), 12u);
  for (size_t i = 0; i < 12; ++i) {
    EXPECT_EQ(parts[i].name, whole[i].name);
    EXPECT_TRUE(same_bits(parts[i].value, whole[i].value));
  }
}

TEST(StagesTest, WrongSizesOfTheCache) {
  const Program program(network(1));
  for (const char* bytes : {"0", "-1", "2M", " 1", "1.5", "99999999999999999999"}) {
    const CacheBytes given(bytes);
    EXPECT_ERROR(c10::ValueError, "QATX_L2_BYTES must be a number of bytes, at least 1, got '",
                 program.run({at::randn({2, 4, 3, 3})}));
  }
  const CacheBytes none("");
  EXPECT_NO_THROW(program.run({at::randn({2, 4, 3, 3})}));
}

}  // namespace
}  // namespace qatx::engine
