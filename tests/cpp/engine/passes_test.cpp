#include "qatx/engine/passes/passes.h"

#include <ATen/ops/equal.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/randint.h>

#include <limits>

#include "graph_testing.h"
#include "qatx/engine/program.h"

namespace qatx::engine {
namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();

int64_t add_layer(Graph& graph, Node node, std::vector<int64_t> inputs) {
  node.inputs = std::move(inputs);
  return add_node(graph, std::move(node));
}

int64_t add_clamp(Graph& graph, int64_t value, double min = 0.0, double max = kInf) {
  return add_node(graph, {.op = "clamp", .inputs = {value}, .floats = {{"clamp", {min, max}}}});
}

std::vector<std::string> operators(const Graph& graph) {
  std::vector<std::string> names;
  for (const Node& node : graph.nodes) names.push_back(node.op);
  return names;
}

using Names = std::vector<std::string>;

// Fuses and checks that the nodes still stand in an order in which they can run.
void fuse_checked(Graph& graph) {
  check_graph(graph);
  fuse(graph);
  ASSERT_NO_THROW(check_graph(graph));
}

TEST(FuseTest, ConvolutionClampAndQuantize) {
  Graph graph;
  const int64_t x = quantize(graph, add_input(graph), unit_qparams());
  const int64_t clamped = add_clamp(graph, add_layer(graph, conv2d_node(), {x}), 0.0, 6.0);
  const int64_t codes = quantize(graph, clamped, make_qparams(0.1, 0, 0, 255));
  graph.outputs = {dequantize(graph, codes)};
  fuse_checked(graph);
  ASSERT_EQ(operators(graph), (Names{"quantize", "conv2d", "dequantize"}));
  const Node& conv = graph.nodes[1];
  EXPECT_EQ(conv.name, "conv");
  EXPECT_EQ(conv.inputs, std::vector<int64_t>{x});
  EXPECT_EQ(conv.output, codes);
  EXPECT_EQ(conv.floats.at("clamp"), (std::vector<double>{0.0, 6.0}));
  EXPECT_EQ(conv.ints, conv2d_node().ints);
  EXPECT_EQ(conv.tensors.size(), 3u);
}

TEST(FuseTest, EveryOperatorWithAnEpilogueTakesClampAndQuantize) {
  std::vector<Node> nodes = {conv2d_node(),           linear_node(),
                             pool_node("avg_pool2d"), {.op = "add"},
                             {.op = "mul"},           table_node(),
                             conv_transpose2d_node(), {.op = "cat"},
                             {.op = "mean"},          {.op = "upsample_bilinear"}};
  for (const Node& node : nodes) {
    Graph graph;
    const int64_t x = quantize(graph, add_input(graph), unit_qparams());
    const std::vector<int64_t> inputs(node.op == "add" || node.op == "mul" ? 2 : 1, x);
    const int64_t y = add_clamp(graph, add_layer(graph, node, inputs));
    graph.outputs = {dequantize(graph, quantize(graph, y, unit_qparams()))};
    fuse_checked(graph);
    EXPECT_EQ(operators(graph), (Names{"quantize", node.op, "dequantize"}));
  }
}

TEST(FuseTest, ResidualOnEitherSide) {
  for (const bool layer_first : {false, true}) {
    for (const Node& layer : {conv2d_node(), linear_node()}) {
      Graph graph;
      const int64_t x = quantize(graph, add_input(graph), unit_qparams());
      const int64_t residual = quantize(graph, add_input(graph), make_qparams(0.5, 9, 0, 255));
      const int64_t y = add_layer(graph, layer, {x});
      const int64_t sum = add_node(
          graph, {.op = "add",
                  .inputs = layer_first ? std::vector{y, residual} : std::vector{residual, y}});
      const int64_t codes = quantize(graph, add_clamp(graph, sum), unit_qparams());
      graph.outputs = {dequantize(graph, codes)};
      fuse_checked(graph);
      ASSERT_EQ(operators(graph), (Names{"quantize", "quantize", layer.op, "dequantize"}));
      EXPECT_EQ(graph.nodes[2].inputs, (std::vector{x, residual}));
      EXPECT_EQ(graph.nodes[2].output, codes);
      EXPECT_TRUE(graph.nodes[2].floats.contains("clamp"));
    }
  }
}

// The layer moves to where the sum stood: its second input is made only after the layer itself.
TEST(FuseTest, ResidualThatIsMadeAfterTheLayer) {
  Graph graph;
  const int64_t x = quantize(graph, add_input(graph), unit_qparams());
  const int64_t y = add_layer(graph, conv2d_node(), {x});
  const int64_t shortcut = quantize(graph, add_layer(graph, conv2d_node(), {x}), unit_qparams());
  const int64_t sum = add_node(graph, {.op = "add", .inputs = {y, shortcut}});
  graph.outputs = {dequantize(graph, quantize(graph, sum, unit_qparams()))};
  fuse_checked(graph);
  ASSERT_EQ(operators(graph), (Names{"quantize", "conv2d", "conv2d", "dequantize"}));
  EXPECT_EQ(graph.nodes[1].output, shortcut);
  EXPECT_EQ(graph.nodes[2].inputs, (std::vector{x, shortcut}));
}

TEST(FuseTest, NoQuantizeWhereTheFloatValueIsUsedTwice) {
  Graph graph;
  const int64_t x = quantize(graph, add_input(graph), unit_qparams());
  const int64_t y = add_layer(graph, conv2d_node(), {x});
  const int64_t a = quantize(graph, y, unit_qparams());
  const int64_t b = quantize(graph, y, make_qparams(0.5, 9, 0, 255));
  graph.outputs = {dequantize(graph, a), dequantize(graph, b)};
  const Names before = operators(graph);
  fuse_checked(graph);
  EXPECT_EQ(operators(graph), before);
}

TEST(FuseTest, NothingWhereTheFloatValueIsAnOutput) {
  Graph graph;
  const int64_t x = quantize(graph, add_input(graph), unit_qparams());
  const int64_t y = add_layer(graph, conv2d_node(), {x});
  graph.outputs = {dequantize(graph, quantize(graph, y, unit_qparams())), y};
  const Names before = operators(graph);
  fuse_checked(graph);
  EXPECT_EQ(operators(graph), before);
}

// The clamped value is an output: the clamp is fused, and the quantize after it is not.
TEST(FuseTest, ClampWhoseResultIsAnOutput) {
  Graph graph;
  const int64_t x = quantize(graph, add_input(graph), unit_qparams());
  const int64_t y = add_clamp(graph, add_layer(graph, conv2d_node(), {x}));
  graph.outputs = {y, dequantize(graph, quantize(graph, y, unit_qparams()))};
  fuse_checked(graph);
  ASSERT_EQ(operators(graph), (Names{"quantize", "conv2d", "quantize", "dequantize"}));
  EXPECT_EQ(graph.nodes[1].output, y);
  EXPECT_TRUE(graph.nodes[1].floats.contains("clamp"));
}

TEST(FuseTest, NotIntoOperatorsWithoutAnEpilogue) {
  Graph graph;
  const int64_t x = quantize(graph, add_input(graph), unit_qparams());
  const int64_t y = dequantize(graph, x);
  graph.outputs = {dequantize(graph, quantize(graph, y, make_qparams(0.5, 9, 0, 255)))};
  const Names before = operators(graph);
  fuse_checked(graph);
  EXPECT_EQ(operators(graph), before);
}

TEST(FuseTest, ASumOfCodesIsNoResidual) {
  Graph graph;
  const int64_t a = quantize(graph, add_input(graph), unit_qparams());
  const int64_t b = quantize(graph, add_input(graph), unit_qparams());
  const int64_t sum = add_node(graph, {.op = "add", .inputs = {a, b}});
  graph.outputs = {dequantize(graph, quantize(graph, sum, unit_qparams()))};
  fuse_checked(graph);
  ASSERT_EQ(operators(graph), (Names{"quantize", "quantize", "add", "dequantize"}));
  EXPECT_EQ(graph.nodes[2].inputs, (std::vector{a, b}));
}

TEST(CanFuseTest, TellsWhatFuseCanDo) {
  Graph graph;
  const int64_t x = quantize(graph, add_input(graph), unit_qparams());
  const int64_t conv = add_layer(graph, conv2d_node(), {x});
  const int64_t linear = add_layer(graph, linear_node(), {x});
  const int64_t sum = add_node(graph, {.op = "add", .inputs = {x, x}});
  const int64_t average = add_layer(graph, pool_node("avg_pool2d"), {x});
  const int64_t clamped = add_clamp(graph, conv);
  const int64_t back = dequantize(graph, x);
  Node quantized_conv = conv2d_node();
  quantized_conv.inputs = {x};
  const int64_t codes = add_node(graph, quantized_conv, unit_qparams());
  for (const int64_t value : {conv, linear}) {
    EXPECT_TRUE(can_fuse_clamp(graph, value));
    EXPECT_TRUE(can_fuse_residual(graph, value));
  }
  for (const int64_t value : {sum, average}) {
    EXPECT_TRUE(can_fuse_clamp(graph, value));
    EXPECT_FALSE(can_fuse_residual(graph, value));
  }
  // Two clamps are one.
  EXPECT_TRUE(can_fuse_clamp(graph, clamped));
  EXPECT_FALSE(can_fuse_residual(graph, clamped));
  // Codes, operators without an epilogue, the program's input.
  for (const int64_t value : {x, codes, back, graph.inputs[0]}) {
    EXPECT_FALSE(can_fuse_clamp(graph, value)) << value;
    EXPECT_FALSE(can_fuse_residual(graph, value)) << value;
  }
}

TEST(CleanUpTest, RemovesWhatNobodyNeeds) {
  Graph graph;
  const int64_t x = quantize(graph, add_input(graph), unit_qparams());
  const int64_t dead = add_layer(graph, conv2d_node(), {x});
  const int64_t y = add_layer(graph, conv2d_node(), {x});
  dequantize(graph, quantize(graph, dead, unit_qparams()));
  graph.outputs = {y};
  eliminate_dead_nodes(graph);
  check_graph(graph);
  ASSERT_EQ(operators(graph), (Names{"quantize", "conv2d"}));
  EXPECT_EQ(graph.nodes[1].output, y);
  EXPECT_EQ(graph.values.size(), 6u);
}

TEST(CleanUpTest, KeepsEveryInput) {
  Graph graph;
  const int64_t unused = add_input(graph);
  graph.outputs = {dequantize(graph, quantize(graph, add_input(graph), unit_qparams()))};
  eliminate_dead_nodes(graph);
  compact_values(graph);
  check_graph(graph);
  EXPECT_EQ(graph.inputs.size(), 2u);
  EXPECT_EQ(graph.inputs[0], unused);
  EXPECT_EQ(graph.nodes.size(), 2u);
}

TEST(CleanUpTest, CompactValuesNumbersThemAnew) {
  Graph graph;
  graph.add_value(unit_qparams());  // nobody's
  const int64_t input = add_input(graph);
  graph.add_value(std::nullopt);
  const QParams q = make_qparams(0.5, 9, 1, 200);
  const int64_t codes = quantize(graph, input, q);
  graph.add_value(std::nullopt);
  Node sum{.op = "add", .inputs = {codes, codes}};
  graph.outputs = {add_node(graph, sum)};
  compact_values(graph);
  check_graph(graph);
  ASSERT_EQ(graph.values.size(), 3u);
  EXPECT_EQ(graph.inputs, std::vector<int64_t>{0});
  EXPECT_EQ(graph.nodes[0].inputs, std::vector<int64_t>{0});
  EXPECT_EQ(graph.nodes[0].output, 1);
  EXPECT_EQ(graph.nodes[1].inputs, (std::vector<int64_t>{1, 1}));
  EXPECT_EQ(graph.nodes[1].output, 2);
  EXPECT_EQ(graph.outputs, std::vector<int64_t>{2});
  ASSERT_TRUE(graph.values[1].quantized());
  EXPECT_EQ(graph.values[1].qparams->zero_point, 9);
  EXPECT_FALSE(graph.values[0].quantized());
  EXPECT_FALSE(graph.values[2].quantized());
}

int64_t add_move_node(Graph& graph, int64_t value, const std::vector<int64_t>& sizes,
                      std::optional<QParams> qparams = std::nullopt) {
  Node node = reshape_node(sizes);
  node.inputs = {value};
  return add_node(graph, std::move(node), qparams);
}

TEST(SinkMovesTest, ClampAndQuantizeComeFirst) {
  Graph graph;
  const int64_t x = quantize(graph, add_input(graph), unit_qparams());
  const int64_t moved = add_move_node(graph, add_layer(graph, conv2d_node(), {x}), {-2, -1});
  const int64_t again = add_move_node(graph, moved, {-2, -1, 1});
  const int64_t codes = quantize(graph, add_clamp(graph, again), make_qparams(0.1, 0, 0, 255));
  graph.outputs = {dequantize(graph, codes)};
  sink_moves(graph);
  ASSERT_NO_THROW(check_graph(graph));
  EXPECT_EQ(operators(graph),
            (Names{"quantize", "conv2d", "clamp", "quantize", "move", "move", "dequantize"}));
  fuse_checked(graph);
  fuse_moves(graph);
  ASSERT_NO_THROW(check_graph(graph));
  ASSERT_EQ(operators(graph), (Names{"quantize", "conv2d", "move", "dequantize"}));
  EXPECT_EQ(graph.nodes[2].ints.at("steps"), (std::vector<int64_t>{0, 2, -2, -1, 0, 3, -2, -1, 1}));
  EXPECT_EQ(graph.nodes[2].output, codes);
  eliminate_dead_nodes(graph);
  compact_values(graph);
  EXPECT_NO_THROW(Program{graph});
}

TEST(SinkMovesTest, AMoveThatOthersReadStays) {
  Graph graph;
  const int64_t x = quantize(graph, add_input(graph), unit_qparams());
  const int64_t moved = add_move_node(graph, add_layer(graph, conv2d_node(), {x}), {-2, -1});
  graph.outputs = {dequantize(graph, quantize(graph, moved, unit_qparams())), moved};
  sink_moves(graph);
  EXPECT_EQ(operators(graph), (Names{"quantize", "conv2d", "move", "quantize", "dequantize"}));
}

TEST(FuseMovesTest, AMoveThatOthersReadStays) {
  for (const bool twice : {false, true}) {
    Graph graph;
    const int64_t x = quantize(graph, add_input(graph), unit_qparams());
    const int64_t first = add_move_node(graph, x, {-1}, unit_qparams());
    const int64_t second = add_move_node(graph, first, {-1, 1}, unit_qparams());
    graph.outputs = {dequantize(graph, second)};
    if (twice) graph.outputs.push_back(dequantize(graph, first));
    fuse_moves(graph);
    ASSERT_NO_THROW(check_graph(graph));
    const auto names = operators(graph);
    EXPECT_EQ(std::count(names.begin(), names.end(), "move"), twice ? 2 : 1);
  }
}

// As where convolutions of one dimension read the same transposed value.
TEST(FuseMovesTest, AMoveThatOnlyMovesReadIsPartOfEach) {
  Graph graph;
  const int64_t x = quantize(graph, add_input(graph), unit_qparams());
  const int64_t first = add_move_node(graph, x, {-1}, unit_qparams());
  const int64_t second = add_move_node(graph, first, {-1, 1}, unit_qparams());
  const int64_t third = add_move_node(graph, first, {-1, 1}, unit_qparams());
  const int64_t other = add_move_node(graph, first, {1, -1}, unit_qparams());
  graph.outputs = {dequantize(graph, second), dequantize(graph, third), dequantize(graph, other)};
  fuse_moves(graph);
  ASSERT_NO_THROW(check_graph(graph));
  ASSERT_EQ(operators(graph),
            (Names{"quantize", "move", "move", "dequantize", "dequantize", "dequantize"}));
  EXPECT_EQ(graph.nodes[1].inputs, std::vector{x});
  EXPECT_EQ(graph.nodes[2].inputs, std::vector{x});
  EXPECT_EQ(graph.nodes[3].inputs, graph.nodes[4].inputs);  // of the two that do the same
  EXPECT_NE(graph.nodes[3].inputs, graph.nodes[5].inputs);
}

// Rows of a table of `values` different codes, limited and quantized.
Graph embedding_graph(int64_t values, std::optional<QParams> qparams) {
  at::manual_seed(0);
  Graph graph;
  const int64_t indices = add_input(graph);
  graph.values.back().dtype = at::kLong;
  Node node{.op = "embedding",
            .name = "words",
            .ints = {{"bags", {0}}},
            .floats = {{"clamp", {-0.5, 0.75}}},
            .tensors = {{"weight", at::randint(values, {40, 7}, at::kByte)},
                        {"weight_scale", at::rand({40}).mul(0.02).add(0.001)}}};
  const int64_t rows = add_layer(graph, std::move(node), {indices});
  graph.values.back().qparams = qparams;
  graph.outputs = {qparams ? dequantize(graph, rows) : rows};
  return graph;
}

TEST(FoldTablesTest, RowsAreTheSame) {
  Graph graph = embedding_graph(256, unit_qparams());
  const at::Tensor indices = at::randint(40, {3, 11}, at::kLong);
  const at::Tensor expected = Program(graph).run({indices})[0];
  fold_tables(graph);
  ASSERT_NO_THROW(check_graph(graph));
  EXPECT_EQ(graph.nodes[0].tensors.size(), 1u);
  EXPECT_TRUE(graph.nodes[0].floats.empty());
  EXPECT_TRUE(at::equal(Program(graph).run({indices})[0], expected));
}

TEST(FoldTablesTest, FewValuesAndFloatsStay) {
  for (Graph graph : {embedding_graph(16, unit_qparams()), embedding_graph(256, std::nullopt)}) {
    fold_tables(graph);
    EXPECT_EQ(graph.nodes[0].tensors.size(), 2u);
  }
}

TEST(FoldTablesTest, WhatIsNoTableOfCodesIsAnError) {
  const auto broken = [](const auto& change, const char* message) {
    Graph graph = embedding_graph(256, make_qparams(1.0 / 128, 128, 1, 255));
    fold_tables(graph);
    change(graph);
    EXPECT_TRUE(testing::throws<c10::ValueError>([&] { Program program(graph); }, message));
  };
  broken([](Graph& graph) { graph.nodes[0].tensors.at("weight")[3][2] = 0; },
         "'words': weight must be codes in 1..255, has 0..");
  const char* mix =
      "'words' without weight_scale must give codes, and have neither bags nor a clamp";
  broken([](Graph& graph) { graph.nodes[0].floats["clamp"] = {0.0, 1.0}; }, mix);
  broken(
      [](Graph& graph) {
        graph.nodes[0].ints["bags"] = {1};
        graph.nodes[0].inputs.push_back(add_input(graph));
        graph.values.back().dtype = at::kLong;
      },
      mix);
  broken(
      [](Graph& graph) {
        graph.outputs = {graph.nodes[0].output};
        graph.nodes.pop_back();
        graph.values[static_cast<size_t>(graph.outputs[0])].qparams.reset();
        graph.values.pop_back();
      },
      mix);
}

}  // namespace
}  // namespace qatx::engine
