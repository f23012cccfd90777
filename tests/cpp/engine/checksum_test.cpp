#include "qatx/engine/checksum.h"

#include <algorithm>
#include <functional>

#include "graph_testing.h"

namespace qatx::engine {
namespace {

// Made anew at every call: nothing is shared between two of them.
Graph sample() {
  Node node = conv2d_node();
  node.floats["clamp"] = {0.0, 6.0};
  Graph graph = single_node_graph(node, unit_qparams(), 2);
  return graph;
}

TEST(ChecksumTest, IsThatOfEqualGraphs) {
  EXPECT_EQ(checksum(sample()), checksum(sample()));
  EXPECT_EQ(checksum(from_state(to_state(sample()))), checksum(sample()));
}

TEST(ChecksumTest, DoesNotDependOnHowATensorLiesInMemory) {
  Graph graph = sample();
  at::Tensor& weight = graph.nodes[2].tensors["weight"];
  weight[1][2][0][1] = 5;
  const int64_t expected = checksum(graph);
  weight = weight.contiguous(at::MemoryFormat::ChannelsLast);
  EXPECT_EQ(checksum(graph), expected);
  weight = at::full({4, 4, 3, 6}, 1, at::kChar).slice(3, 0, 6, 2).copy_(weight);
  EXPECT_EQ(checksum(graph), expected);
}

TEST(ChecksumTest, CoversEverything) {
  const std::vector<std::function<void(Graph&)>> changes = {
      [](Graph& g) { g.add_value(std::nullopt); },
      [](Graph& g) { g.values[1].qparams->scale *= 2; },
      [](Graph& g) { g.values[1].qparams->zero_point += 1; },
      [](Graph& g) { g.values[1].qparams->quant_min += 1; },
      [](Graph& g) { g.values[1].qparams->quant_max -= 1; },
      [](Graph& g) { g.values[1].qparams.reset(); },
      [](Graph& g) { g.values[0].qparams = unit_qparams(); },
      [](Graph& g) { std::swap(g.inputs[0], g.inputs[1]); },
      [](Graph& g) { g.inputs.pop_back(); },
      [](Graph& g) { g.outputs[0] -= 1; },
      [](Graph& g) { g.outputs.clear(); },
      [](Graph& g) { g.nodes.pop_back(); },
      [](Graph& g) { std::swap(g.nodes[0], g.nodes[1]); },
      [](Graph& g) { g.nodes[2].op = "conv2e"; },
      [](Graph& g) { g.nodes[2].name += "s"; },
      [](Graph& g) { std::swap(g.nodes[2].inputs[0], g.nodes[2].inputs[1]); },
      [](Graph& g) { g.nodes[2].inputs.pop_back(); },
      [](Graph& g) { g.nodes[2].output += 1; },
      [](Graph& g) { g.nodes[2].ints["stride"][1] = 2; },
      [](Graph& g) { g.nodes[2].ints["squeeze"] = {}; },
      [](Graph& g) { g.nodes[2].floats["clamp"][0] = -0.0; },
      [](Graph& g) { g.nodes[2].floats.clear(); },
      [](Graph& g) { g.nodes[2].tensors["weight"][3][3][2][2] = 2; },
      [](Graph& g) { g.nodes[2].tensors["weight"][0][0][0][0] = -1; },
      [](Graph& g) { g.nodes[2].tensors["weight"] = g.nodes[2].tensors["weight"].view({4, 4, 9}); },
      [](Graph& g) { g.nodes[2].tensors["weight"] = full({4, 4, 3, 3}, 1, at::kByte); },
      [](Graph& g) { g.nodes[2].tensors["bias"] = at::Tensor(); },
      [](Graph& g) { g.nodes[2].tensors.erase("bias"); },
  };
  std::vector<int64_t> sums = {checksum(sample())};
  for (size_t i = 0; i < changes.size(); ++i) {
    Graph graph = sample();
    changes[i](graph);
    const int64_t sum = checksum(graph);
    EXPECT_EQ(std::count(sums.begin(), sums.end(), sum), 0) << "change " << i;
    sums.push_back(sum);
  }
}

}  // namespace
}  // namespace qatx::engine
