#include "qatx/engine/placement.h"

#include "graph_testing.h"
#include "network.h"
#include "qatx/engine/operators/gemm_input.h"
#include "qatx/kernels/registry.h"

namespace qatx::engine {
namespace {

// So that there is a number of bytes that a kernel may like to round up, and a small one.
constexpr int64_t kChannels = 52;

Placement place(const Graph& graph, const std::vector<Shape>& inputs) {
  const Operators operators(graph, inputs);
  return place_values(graph, operators.all, operators.shapes, {{0, graph.nodes.size(), 1}});
}

// 1 x 1, or 1 x `width`.
Node conv_node(int64_t in, int64_t out, int64_t width = 1) {
  Node node = conv2d_node();
  node.ints["padding"] = {0, 0, 0, 0};
  node.tensors = {{"weight", full({out, in, 1, width}, 1, at::kChar)},
                  {"weight_scale", full({out}, 0.5)},
                  {"bias", full({out}, 0.25)}};
  return node;
}

int64_t add(Graph& graph, Node node, const std::vector<int64_t>& inputs) {
  node.inputs = inputs;
  return add_node(graph, std::move(node), unit_qparams());
}

// From a value of kChannels channels, which the first convolution makes, to the second one.
struct Chain {
  Chain() {
    value =
        add(graph, conv_node(8, kChannels), {quantize(graph, add_input(graph), unit_qparams())});
    last = add(graph, conv_node(kChannels, 4), {value});
  }

  int64_t pitch() {
    graph.outputs.push_back(dequantize(graph, last));
    const Placement placement = place(graph, {{2, 8, 3, 5}});
    return placement.pitches[static_cast<size_t>(value)];
  }

  Graph graph;
  int64_t value;
  int64_t last;
};

int64_t expected_pitch() {
  const int64_t best = best_pitch_of(kChannels);
  return best > kChannels ? best : 0;
}

TEST(PlacementTest, BestPitches) {
  const int64_t line = kernels::active().gemm.row_line;
  EXPECT_EQ(best_pitch_of(5 * line), 5 * line);
  EXPECT_EQ(best_pitch_of(300), line == 64 ? 320 : 300);
  EXPECT_EQ(best_pitch_of(33), 33);  // too much would be added
}

TEST(PlacementTest, RowsLieWhereAConvolutionReadsThemBest) {
  EXPECT_EQ(Chain().pitch(), expected_pitch());
}

TEST(PlacementTest, AllThatReadThemHaveToTakeIt) {
  Chain two;
  two.last = add(two.graph, {.op = "add"},
                 {two.last, add(two.graph, conv_node(kChannels, 4), {two.value})});
  EXPECT_EQ(two.pitch(), expected_pitch());

  Chain table;
  Node relu = table_node();
  add(table.graph, relu, {table.value});
  EXPECT_EQ(table.pitch(), 0);

  Chain residual;
  add(residual.graph, conv_node(4, kChannels), {residual.last, residual.value});
  EXPECT_EQ(residual.pitch(), 0);

  Chain padded;
  Node node = conv_node(kChannels, 4, 3);
  node.ints["padding"] = {0, 1, 0, 1};
  add(padded.graph, node, {padded.value});
  EXPECT_EQ(padded.pitch(), 0);

  Chain output;
  output.graph.outputs = {output.value};
  EXPECT_EQ(output.pitch(), 0);
}

TEST(PlacementTest, RowsLieApartThroughAMove) {
  Graph graph;
  const int64_t indices = add_input(graph);
  graph.values.back().dtype = at::kLong;
  const int64_t words = add(graph,
                            {.op = "embedding",
                             .ints = {{"bags", {0}}},
                             .tensors = {{"weight", full({9, kChannels}, 7, at::kByte)}}},
                            {indices});
  Node move{.op = "move"};
  add_move(move.ints["steps"], MoveKind::permute, {0, 2, 1});
  add_move(move.ints["steps"], MoveKind::split, {2, 6});
  const int64_t image = add(graph, move, {words});
  const int64_t last = add(graph, conv_node(kChannels, 4, 3), {image});
  graph.outputs = {dequantize(graph, last)};
  const Placement placement = place(graph, {{2, 6}});
  for (const int64_t value : {words, image}) {
    EXPECT_EQ(placement.pitches[static_cast<size_t>(value)], expected_pitch());
    EXPECT_EQ(placement.offsets[static_cast<size_t>(value)],
              placement.offsets[static_cast<size_t>(words)]);
  }
  const int64_t pitch = std::max(expected_pitch(), kChannels);
  EXPECT_GE(placement.whole.bytes, 2 * 6 * pitch);
}

// Rows of tables, one table beside the other: none writes into its neighbour's columns.
TEST(PlacementTest, EmbeddingsPutTogether) {
  at::manual_seed(0);
  const at::Tensor indices = at::randint(9, {5, 7}, at::kLong);
  Graph graph;
  Node cat{.op = "cat", .ints = {{"dim", {2}}}};
  std::vector<at::Tensor> expected;
  std::vector<at::Tensor> inputs;
  for (const int64_t width : {kChannels, int64_t{5}, int64_t{70}}) {
    Graph alone;
    for (Graph* g : {&alone, &graph}) {
      const int64_t input = add_input(*g);
      g->values.back().dtype = at::kLong;
      at::manual_seed(static_cast<uint64_t>(width));
      const int64_t words = add(*g,
                                {.op = "embedding",
                                 .ints = {{"bags", {0}}},
                                 .tensors = {{"weight", at::randint(256, {9, width}, at::kByte)},
                                             {"weight_scale", full({9}, 0.01)}}},
                                {input});
      if (g == &alone) {
        alone.outputs = {dequantize(alone, words)};
      } else {
        cat.inputs.push_back(words);
      }
    }
    expected.push_back(Program(alone).run({indices})[0]);
    inputs.push_back(indices);
  }
  const int64_t whole = add_node(graph, cat, unit_qparams());
  graph.outputs = {dequantize(graph, whole)};
  EXPECT_TRUE(testing::same_bits(Program(graph).run(inputs)[0], at::cat(expected, 2)));
}

// Against the oracle; what makes the rows and what reads them are of many kinds.
TEST(PlacementTest, ResultsAreTheSame) {
  at::manual_seed(0);
  for (unsigned seed = 0; seed < 100; ++seed) {
    Network network(seed);
    auto& random = network.random;
    const auto width = [&] {
      return std::vector<int64_t>{random.integer(1, 2), random.integer(1, 3)};
    };
    const int64_t channels =
        std::vector<int64_t>{48, 52, 63, 100}[static_cast<size_t>(random.integer(0, 3))];
    Network::Tensor x = network.input(
        {random.integer(1, 3), random.integer(1, 9), random.integer(2, 7), random.integer(3, 9)});
    for (int i = 0; i < 3; ++i) {
      if (!x.q) x = network.requantize(x);
      const int64_t padding = i == 0 ? 1 : 0;
      x = network.conv2d(x,
                         {.out_channels = i < 2 ? channels : 5,
                          .kernel = i == 1 ? std::vector<int64_t>{1, 1} : width(),
                          .padding = {padding, padding, padding, padding}},
                         random.chance(0.2));
    }
    network.output(x);
    ASSERT_NO_FATAL_FAILURE(network.check()) << seed;
  }
}

}  // namespace
}  // namespace qatx::engine
