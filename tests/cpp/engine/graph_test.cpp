#include "qatx/engine/graph.h"

#include <algorithm>
#include <limits>
#include <numeric>

#include "graph_testing.h"

namespace qatx::engine {
namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();
constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

// float32 -> quantize -> conv2d to float32 -> quantize -> dequantize.
Graph sample() {
  Graph graph;
  const int64_t codes = quantize(graph, add_input(graph), unit_qparams());
  Node conv = conv2d_node();
  conv.inputs = {codes};
  conv.floats["clamp"] = {0.0, kInf};
  const int64_t value = add_node(graph, conv);
  graph.outputs = {dequantize(graph, quantize(graph, value, make_qparams(0.1, 3, 0, 15))), value};
  return graph;
}

TEST(MakeQParamsTest, KeepsWhatItIsGiven) {
  const QParams q = make_qparams(0.1, 3, 0, 15);
  EXPECT_EQ(q.scale, 0.1f);
  EXPECT_EQ(q.inv_scale, 1.0f / 0.1f);
  EXPECT_EQ(q.zero_point, 3);
  EXPECT_EQ(q.quant_min, 0);
  EXPECT_EQ(q.quant_max, 15);
}

TEST(MakeQParamsTest, Errors) {
  for (const double scale : {0.0, -1.0, 1e-40, 1e39, 1e300, kInf, kNan}) {
    EXPECT_ERROR(c10::ValueError, "scale must be in", make_qparams(scale, 0, 0, 255));
  }
  for (const int64_t zero_point : {-1, 256, 1 << 20}) {
    EXPECT_ERROR(c10::ValueError, "a code must be in 0..255", make_qparams(1, zero_point, 0, 255));
  }
  EXPECT_ERROR(c10::ValueError, "a code must be in 0..255", make_qparams(1, 0, -128, 127));
  // Would be 0 in 32 bits.
  EXPECT_ERROR(c10::ValueError, "a code must be in 0..255",
               make_qparams(1, int64_t{1} << 32, 0, 255));
  EXPECT_ERROR(c10::ValueError, "zero_point must be one of the codes 10..20, got 9",
               make_qparams(1, 9, 10, 20));
  EXPECT_ERROR(c10::ValueError, "zero_point must be one of the codes 10..20, got 21",
               make_qparams(1, 21, 10, 20));
  EXPECT_ERROR(c10::ValueError, "0 <= quant_min < quant_max <= 255", make_qparams(1, 7, 7, 7));
  EXPECT_ERROR(c10::ValueError, "0 <= quant_min < quant_max <= 255", make_qparams(1, 7, 9, 7));
}

TEST(CheckGraphTest, AcceptsAGraph) {
  EXPECT_NO_THROW(check_graph(sample()));
  EXPECT_NO_THROW(check_graph(Graph{}));
}

TEST(CheckGraphTest, ValuesOutOfRange) {
  for (const int64_t bad : {int64_t{-1}, int64_t{5}, std::numeric_limits<int64_t>::min(),
                            std::numeric_limits<int64_t>::max()}) {
    const std::string message = "value " + std::to_string(bad) + " is not one of the 5 values";
    Graph graph = sample();
    graph.inputs = {bad};
    EXPECT_ERROR(c10::ValueError, message, check_graph(graph));
    graph = sample();
    graph.nodes[1].inputs = {bad};
    EXPECT_ERROR(c10::ValueError, message, check_graph(graph));
    graph = sample();
    graph.nodes[2].output = bad;
    EXPECT_ERROR(c10::ValueError, message, check_graph(graph));
    graph = sample();
    graph.outputs = {bad};
    EXPECT_ERROR(c10::ValueError, message, check_graph(graph));
  }
}

TEST(CheckGraphTest, ValuesMadeTwice) {
  Graph graph = sample();
  graph.nodes[2].output = graph.nodes[0].output;
  EXPECT_ERROR(c10::ValueError, "value 1 is made twice", check_graph(graph));
  graph = sample();
  graph.nodes[3].output = 0;  // the input
  EXPECT_ERROR(c10::ValueError, "value 0 is made twice", check_graph(graph));
  graph = sample();
  graph.inputs = {0, 0};
  EXPECT_ERROR(c10::ValueError, "value 0 is made twice", check_graph(graph));
}

TEST(CheckGraphTest, ValuesUsedBeforeTheyAreMade) {
  Graph graph = sample();
  std::swap(graph.nodes[0], graph.nodes[1]);
  EXPECT_ERROR(c10::ValueError, "value 1 is used before it is made", check_graph(graph));
  graph = sample();
  graph.nodes[1].inputs = {graph.nodes[1].output};  // itself
  EXPECT_ERROR(c10::ValueError, "value 2 is used before it is made", check_graph(graph));
  graph = sample();
  graph.outputs = {graph.add_value(std::nullopt)};  // made by nobody
  EXPECT_ERROR(c10::ValueError, "value 5 is used before it is made", check_graph(graph));
}

TEST(CheckGraphTest, InputsAndOutputsAreFloat) {
  Graph graph = sample();
  graph.inputs.push_back(graph.add_value(unit_qparams()));
  EXPECT_ERROR(c10::ValueError, "an input must be float32, indices or a mask, not codes",
               check_graph(graph));
  graph = sample();
  graph.outputs.push_back(1);
  EXPECT_ERROR(c10::ValueError, "an output must be float32", check_graph(graph));
}

// An output has memory of its own, which nothing else may share.
TEST(CheckGraphTest, OutputsAreMadeByNodesAndListedOnce) {
  Graph graph = sample();
  graph.outputs = {2, 2};
  EXPECT_ERROR(c10::ValueError, "output", check_graph(graph));
  graph = sample();
  graph.outputs = {0};
  EXPECT_ERROR(c10::ValueError, "output", check_graph(graph));
}

TEST(CheckGraphTest, QParamsOfEveryValue) {
  Graph graph = sample();
  graph.values[1].qparams->scale = -1.0f;
  EXPECT_ERROR(c10::ValueError, "scale must be in", check_graph(graph));
  graph = sample();
  graph.values[1].qparams->zero_point = 256;
  EXPECT_ERROR(c10::ValueError, "zero_point must be one of the codes", check_graph(graph));
  graph = sample();
  graph.values[1].qparams->quant_max = 300;
  EXPECT_ERROR(c10::ValueError, "0 <= quant_min < quant_max <= 255", check_graph(graph));
  graph = sample();
  graph.add_value(QParams{});  // one that nobody uses
  EXPECT_ERROR(c10::ValueError, "scale must be in", check_graph(graph));
}

void expect_same(const Graph& actual, const Graph& expected) {
  ASSERT_EQ(actual.values.size(), expected.values.size());
  for (size_t v = 0; v < expected.values.size(); ++v) {
    ASSERT_EQ(actual.values[v].quantized(), expected.values[v].quantized());
    if (!expected.values[v].quantized()) continue;
    const QParams& a = *actual.values[v].qparams;
    const QParams& e = *expected.values[v].qparams;
    EXPECT_EQ(a.scale, e.scale);
    EXPECT_EQ(a.inv_scale, e.inv_scale);
    EXPECT_EQ(a.zero_point, e.zero_point);
    EXPECT_EQ(a.quant_min, e.quant_min);
    EXPECT_EQ(a.quant_max, e.quant_max);
  }
  EXPECT_EQ(actual.inputs, expected.inputs);
  EXPECT_EQ(actual.outputs, expected.outputs);
  ASSERT_EQ(actual.nodes.size(), expected.nodes.size());
  for (size_t n = 0; n < expected.nodes.size(); ++n) {
    const Node& a = actual.nodes[n];
    const Node& e = expected.nodes[n];
    EXPECT_EQ(a.op, e.op);
    EXPECT_EQ(a.name, e.name);
    EXPECT_EQ(a.inputs, e.inputs);
    EXPECT_EQ(a.output, e.output);
    EXPECT_EQ(a.ints, e.ints);
    EXPECT_EQ(a.floats, e.floats);
    ASSERT_EQ(a.tensors.size(), e.tensors.size());
    for (const auto& [key, t] : e.tensors) {
      EXPECT_EQ(a.tensors.at(key).scalar_type(), t.scalar_type()) << key;
      EXPECT_TRUE(a.tensors.at(key).equal(t)) << key;
    }
  }
}

TEST(GraphStateTest, RoundTrip) {
  const Graph graph = sample();
  expect_same(from_state(to_state(graph)), graph);
  expect_same(from_state(to_state(Graph{})), Graph{});
}

at::Tensor& weight_of(GraphState& state) {
  auto& tensors = std::get<6>(std::get<4>(state)[1]);
  const auto found = std::find_if(tensors.begin(), tensors.end(),
                                  [](const auto& entry) { return std::get<0>(entry) == "weight"; });
  return std::get<1>(*found);
}

// Values that 4 or 2 bits can number take no more in a file, whatever they are.
TEST(GraphStateTest, TensorsOfFewValues) {
  struct Case {
    std::vector<int64_t> values;
    at::ScalarType dtype;
    int64_t bits;
  };
  std::vector<int64_t> many(17);
  std::iota(many.begin(), many.end(), -8);
  const std::vector<Case> cases = {
      {{-8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7}, at::kChar, 4},
      {{-128, -64, -32, -16, -8, 0, 8, 16, 32, 64, 127}, at::kChar, 4},
      {{-2, -1, 0, 1}, at::kChar, 2},
      {{-127, 127}, at::kChar, 2},
      {{0, 1, 2, 3}, at::kChar, 2},
      {{5}, at::kChar, 2},
      {many, at::kChar, 8},
      {{0, 255, 128}, at::kByte, 2},
      {{250, 251, 252, 253, 254}, at::kByte, 4}};
  for (const Case& c : cases) {
    SCOPED_TRACE(::testing::Message() << c.values.size() << " values from " << c.values[0]);
    Graph graph = sample();
    at::Tensor weight = at::empty({5, 7, 3, 3}, c.dtype);
    testing::Random random(1);
    for (int64_t i = 0; i < weight.numel(); ++i) {
      const size_t any = static_cast<size_t>(random.integer(0, 1000)) % c.values.size();
      weight.view(-1)[i] = c.values[i < 17 ? static_cast<size_t>(i) % c.values.size() : any];
    }
    // In another order in memory: files keep the logical one.
    graph.nodes[1].tensors["weight"] = weight.contiguous(at::MemoryFormat::ChannelsLast);
    GraphState state = to_state(graph);
    EXPECT_EQ(weight_of(state).nbytes(), static_cast<size_t>((weight.numel() * c.bits + 7) / 8));
    graph.nodes[1].tensors["weight"] = weight;
    expect_same(from_state(state), graph);
  }
}

TEST(GraphStateTest, VersionWithoutCodebooks) {
  GraphState state = to_state(sample());
  std::get<0>(state) = 2;
  expect_same(from_state(state), sample());
}

TEST(GraphStateTest, DamagedCodebooks) {
  const auto with = [](const std::string& key, const std::vector<int64_t>& numbers) {
    GraphState state = to_state(sample());
    for (auto& [name, list] : std::get<4>(std::get<4>(state)[1])) {
      if (name == "weight" + key) list = numbers;
    }
    return state;
  };
  EXPECT_NO_THROW(from_state(with(".codebook", {0, 255, 3, 3})));
  for (const std::vector<int64_t>& bad : std::vector<std::vector<int64_t>>{
           {}, {1}, {1, 2, 3}, {1, 2, 3, -1}, {1, 2, 3, 256}, {1, 2, 3, int64_t{1} << 32}}) {
    EXPECT_ERROR(c10::ValueError, "'conv': the codebook of tensor 'weight' must consist of",
                 from_state(with(".codebook", bad)));
  }
  for (const std::vector<int64_t>& bad :
       std::vector<std::vector<int64_t>>{{}, {1}, {2, 4, 4, 3, 3}, {-1, 144}}) {
    EXPECT_ERROR(c10::ValueError, "'conv': the shape of tensor 'weight' is missing or not one",
                 from_state(with(".shape", bad)));
  }
  constexpr int64_t kHuge = std::numeric_limits<int64_t>::max();
  for (const std::vector<int64_t>& bad :
       std::vector<std::vector<int64_t>>{{1, 4, 4, 3, 5},
                                         {1, 0, 4},
                                         {1, -4, -36},
                                         {1, kHuge, 2, 2},
                                         {1, int64_t{1} << 32, int64_t{1} << 32, 144}}) {
    EXPECT_ERROR(c10::ValueError, "a tensor of sizes", from_state(with(".shape", bad)));
  }
  EXPECT_ERROR(c10::ValueError, "must consist of 1 bytes", from_state(with(".shape", {1, 4})));
  GraphState state = to_state(sample());
  weight_of(state) = full({144}, 0);
  EXPECT_ERROR(c10::ValueError, "it must be uint8 with one dimension", from_state(state));
  weight_of(state) = full({36, 1}, 0, at::kByte);
  EXPECT_ERROR(c10::ValueError, "it must be uint8 with one dimension", from_state(state));
}

TEST(GraphStateTest, UnknownVersions) {
  for (const int64_t version : {int64_t{0}, int64_t{-1}, kFormatVersion + 1}) {
    GraphState state = to_state(sample());
    std::get<0>(state) = version;
    EXPECT_ERROR(c10::ValueError, "format version " + std::to_string(version) + " is not known",
                 from_state(state));
  }
}

TEST(GraphStateTest, DamagedQParams) {
  const auto with_value = [](const ValueState& value) {
    GraphState state = to_state(sample());
    std::get<1>(state)[1] = value;
    return state;
  };
  EXPECT_NO_THROW(from_state(with_value({true, 0.5, 4, 0, 255, "x"})));
  for (const double scale : {0.0, -0.5, 1e-40, 1e300, kInf, kNan}) {
    EXPECT_ERROR(c10::ValueError, "scale must be in",
                 from_state(with_value({true, scale, 4, 0, 255, "x"})));
  }
  EXPECT_ERROR(c10::ValueError, "zero_point must be one of the codes",
               from_state(with_value({true, 0.5, 4, 5, 255, "x"})));
  EXPECT_ERROR(c10::ValueError, "a code must be in 0..255",
               from_state(with_value({true, 0.5, 4, 0, int64_t{1} << 32 | 255, "x"})));
  EXPECT_ERROR(c10::ValueError, "quant_min < quant_max",
               from_state(with_value({true, 0.5, 4, 4, 4, "x"})));
  EXPECT_ERROR(c10::ValueError, "value \"x\" has a name, which only quantized values have",
               from_state(with_value({false, 0.0, 0, 0, 0, "x"})));
}

TEST(GraphStateTest, DamagedIndices) {
  GraphState state = to_state(sample());
  std::get<2>(state) = {9};
  EXPECT_ERROR(c10::ValueError, "value 9 is not one of the 5 values", from_state(state));
  state = to_state(sample());
  std::get<3>(std::get<4>(state)[0]) = -1;
  EXPECT_ERROR(c10::ValueError, "value -1 is not one of the 5 values", from_state(state));
}

TEST(GraphStateTest, AttributesThatStandTwice) {
  GraphState state = to_state(sample());
  auto& ints = std::get<4>(std::get<4>(state)[1]);
  ints.push_back(ints[0]);
  EXPECT_ERROR(c10::ValueError, "attribute 'dilation' stands twice", from_state(state));
  state = to_state(sample());
  auto& floats = std::get<5>(std::get<4>(state)[1]);
  floats.emplace_back("clamp", std::vector<double>{0, 1});
  EXPECT_ERROR(c10::ValueError, "attribute 'clamp' stands twice", from_state(state));
  state = to_state(sample());
  auto& tensors = std::get<6>(std::get<4>(state)[1]);
  tensors.push_back(tensors[2]);
  EXPECT_ERROR(c10::ValueError, "attribute 'weight_scale' stands twice", from_state(state));
}

}  // namespace
}  // namespace qatx::engine
