#include "qatx/engine/program.h"

#include <c10/core/Allocator.h>
#include <c10/util/ThreadLocalDebugInfo.h>

#include <thread>

#include "network.h"
#include "qatx/engine/recording.h"

namespace qatx::engine {
namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();
constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

// ---- What a program refuses to be made of -----------------------------------------------------

Node cat_node() { return {.op = "cat", .name = "join", .ints = {{"dim", {1}}}}; }
Node slice_node() { return {.op = "slice", .name = "part", .ints = {{"range", {1, 0, 2, 1}}}}; }
Node pad_node() {
  return {.op = "pad", .name = "frame", .ints = {{"pads", {1, 1}}, {"mode", {0}}}};
}
Node upsample_node(const char* op) {
  return {.op = op,
          .name = "up",
          .ints = {{"exact", {0}}, {"align_corners", {0}}},
          .floats = {{"scale", {2.0, 2.0}}}};
}

bool moves_codes(const Node& node) {
  return node.op == "max_pool2d" || node.op == "move" || node.op == "slice" || node.op == "pad" ||
         node.op == "upsample_nearest";
}

void expect_bad(const Node& node, const std::string& message, std::optional<QParams> output = {},
                size_t input_count = 1) {
  EXPECT_ERROR(c10::ValueError, message, Program(single_node_graph(node, output, input_count)));
}

TEST(ProgramTest, TheNodesThatTheErrorsStartFromAreValid) {
  EXPECT_NO_THROW(Program(single_node_graph(conv2d_node())));
  EXPECT_NO_THROW(Program(single_node_graph(conv2d_node(), unit_qparams(), 2)));
  EXPECT_NO_THROW(Program(single_node_graph(linear_node())));
  EXPECT_NO_THROW(Program(single_node_graph(pool_node("max_pool2d"), unit_qparams())));
  EXPECT_NO_THROW(Program(single_node_graph(pool_node("avg_pool2d"))));
  EXPECT_NO_THROW(Program(single_node_graph({.op = "add"}, std::nullopt, 2)));
  EXPECT_NO_THROW(Program(single_node_graph({.op = "mul"}, unit_qparams(), 2)));
  EXPECT_NO_THROW(Program(single_node_graph(table_node())));
  EXPECT_NO_THROW(Program(single_node_graph(cat_node(), std::nullopt, 3)));
  EXPECT_NO_THROW(Program(single_node_graph(upsample_node("upsample_bilinear"))));
  for (const Node& node :
       {reshape_node({-1}), slice_node(), pad_node(), upsample_node("upsample_nearest")}) {
    EXPECT_NO_THROW(Program(single_node_graph(node, unit_qparams())));
  }
  EXPECT_NO_THROW(Program(single_node_graph(table_node(), unit_qparams())));
}

TEST(ProgramTest, WrongTables) {
  Node table = table_node();
  expect_bad(table, "table 'sigmoid': has 2 inputs, must have 1 to 1", {}, 2);
  for (const int64_t size : {1, 255, 257}) {
    table.tensors["values"] = full({size}, 1);
    expect_bad(table, "values must have 256 elements, got " + std::to_string(size));
  }
  table.tensors["values"] = full({16, 16}, 1);
  expect_bad(table, "tensor 'values' must be Float with 1 dimensions");
  table.tensors["values"] = full({256}, 1, at::kByte);
  expect_bad(table, "tensor 'values' must be Float");
  table.tensors.clear();
  expect_bad(table, "tensor 'values' is missing");
}

TEST(ProgramTest, UnknownOperator) {
  expect_bad({.op = "cumsum", .name = "attention"},
             "operator 'cumsum' of node 'attention' is not known to this qatx");
  // Exists only between lowering and fusion.
  expect_bad({.op = "clamp"}, "operator 'clamp'");
}

TEST(ProgramTest, InvalidGraph) {
  Graph graph = single_node_graph(conv2d_node());
  std::swap(graph.nodes[0], graph.nodes[1]);
  EXPECT_ERROR(c10::ValueError, "used before it is made", Program(graph));
}

TEST(ProgramTest, WrongNumberOfInputs) {
  expect_bad(conv2d_node(), "conv2d 'conv': has 3 inputs, must have 1 to 2", {}, 3);
  expect_bad(linear_node(), "linear 'fc': has 3 inputs, must have 1 to 2", {}, 3);
  expect_bad(pool_node("max_pool2d"), "has 2 inputs, must have 1 to 1", unit_qparams(), 2);
  expect_bad(pool_node("avg_pool2d"), "has 2 inputs, must have 1 to 1", {}, 2);
  for (const char* op : {"add", "mul"}) {
    expect_bad({.op = op}, "has 3 inputs, must have 2 to 2", {}, 3);
    expect_bad({.op = op}, "lacks input 1", {}, 1);
  }
  expect_bad({.op = "dequantize"}, "has 2 inputs, must have 1 to 1", {}, 2);
  expect_bad(reshape_node({-1}), "has 2 inputs, must have 1 to 1", unit_qparams(), 2);
  for (const Node& node :
       {conv2d_node(), linear_node(), pool_node("max_pool2d"), pool_node("avg_pool2d"),
        Node{.op = "add"}, Node{.op = "quantize"}, Node{.op = "dequantize"}, reshape_node({-1}),
        cat_node(), slice_node(), pad_node(), upsample_node("upsample_nearest"),
        upsample_node("upsample_bilinear")}) {
    expect_bad(node, "", {}, 0);
  }
}

// Node `node` with a float32 input.
Graph float_input_graph(Node node, std::optional<QParams> output, size_t input_count) {
  Graph graph;
  for (size_t i = 0; i < input_count; ++i) node.inputs.push_back(add_input(graph));
  add_node(graph, std::move(node), output);
  return graph;
}

TEST(ProgramTest, FloatWhereCodesAreNeeded) {
  for (const Node& node :
       {conv2d_node(), linear_node(), table_node(), pool_node("max_pool2d"),
        pool_node("avg_pool2d"), Node{.op = "dequantize"}, cat_node(), slice_node(), pad_node(),
        upsample_node("upsample_nearest"), upsample_node("upsample_bilinear")}) {
    const bool gives_codes = moves_codes(node);
    EXPECT_ERROR(c10::ValueError, "input 0 must be quantized",
                 Program(float_input_graph(
                     node, gives_codes ? std::optional(unit_qparams()) : std::nullopt, 1)));
  }
  for (const char* op : {"add", "mul"}) {
    EXPECT_ERROR(c10::ValueError, "input 0 must be quantized",
                 Program(float_input_graph({.op = op}, std::nullopt, 2)));
  }
  // A residual.
  for (Node node : {conv2d_node(), linear_node()}) {
    Graph graph;
    node.inputs = {quantize(graph, add_input(graph), unit_qparams()), add_input(graph)};
    add_node(graph, node);
    EXPECT_ERROR(c10::ValueError, "input 1 must be quantized", Program(graph));
  }
}

TEST(ProgramTest, CodesAndFloatOnTheRightSides) {
  expect_bad({.op = "quantize"}, "takes float32 and gives codes", unit_qparams());
  EXPECT_ERROR(c10::ValueError, "takes float32 and gives codes",
               Program(float_input_graph({.op = "quantize"}, std::nullopt, 1)));
  expect_bad({.op = "dequantize"}, "gives float32", unit_qparams());
}

TEST(ProgramTest, OperatorsThatMoveCodesKeepTheirParameters) {
  for (const Node& node : {pool_node("max_pool2d"), reshape_node({-1}), slice_node(), pad_node(),
                           upsample_node("upsample_nearest")}) {
    expect_bad(node, "output must be quantized");
    for (const QParams& other :
         {make_qparams(1.0 / 64, 128, 0, 255), make_qparams(1.0 / 128, 127, 0, 255),
          make_qparams(1.0 / 128, 128, 1, 255), make_qparams(1.0 / 128, 128, 0, 254)}) {
      expect_bad(node, "must have the same quantization parameters", other);
    }
  }
}

TEST(ProgramTest, MissingAttributes) {
  for (const char* key : {"stride", "dilation", "padding", "groups"}) {
    Node node = conv2d_node();
    node.ints.erase(key);
    expect_bad(node, "conv2d 'conv': attribute '" + std::string(key) + "' is missing");
  }
  for (const char* key : {"weight", "weight_scale", "bias"}) {
    for (Node node : {conv2d_node(), linear_node()}) {
      node.tensors.erase(key);
      expect_bad(node, "tensor '" + std::string(key) + "' is missing");
      node.tensors[key] = at::Tensor();
      expect_bad(node, "tensor '" + std::string(key) + "' is missing");
    }
  }
  for (const char* key : {"kernel", "stride", "dilation", "padding", "ceil_mode"}) {
    for (const char* op : {"max_pool2d", "avg_pool2d"}) {
      Node node = pool_node(op);
      node.ints.erase(key);
      expect_bad(node, "attribute '" + std::string(key) + "' is missing",
                 op == std::string("max_pool2d") ? std::optional(unit_qparams()) : std::nullopt);
    }
  }
  expect_bad({.op = "move"}, "attribute 'steps' is missing", unit_qparams());
  expect_bad({.op = "slice"}, "attribute 'range' is missing", unit_qparams());
  expect_bad({.op = "pad"}, "attribute 'pads' is missing", unit_qparams());
  expect_bad({.op = "cat"}, "attribute 'dim' is missing");
  for (const char* op : {"upsample_nearest", "upsample_bilinear"}) {
    Node node = upsample_node(op);
    node.floats.clear();
    expect_bad(node, "attribute 'scale' is missing", unit_qparams());
    node = upsample_node(op);
    node.ints.clear();
    expect_bad(node, "' is missing", unit_qparams());
  }
}

TEST(ProgramTest, WrongAttributes) {
  struct Case {
    const char* key;
    std::vector<int64_t> numbers;
    const char* message;
  };
  constexpr int64_t kHuge = int64_t{1} << 40;
  const std::vector<Case> window = {{"stride", {1}, "'stride' must have 2 numbers, has 1"},
                                    {"stride", {1, 1, 1}, "'stride' must have 2 numbers, has 3"},
                                    {"stride", {1, 0}, "'stride' must be in 1.."},
                                    {"stride", {-1, 1}, "'stride' must be in 1.."},
                                    {"stride", {kHuge, 1}, "'stride' must be in 1.."},
                                    {"dilation", {}, "'dilation' must have 2 numbers, has 0"},
                                    {"dilation", {0, 1}, "'dilation' must be in 1.."},
                                    {"dilation", {1, kHuge}, "'dilation' must be in 1.."},
                                    {"padding", {0, 0}, "'padding' must have 4 numbers, has 2"},
                                    {"padding", {0, 0, -1, 0}, "'padding' must be in 0.."},
                                    {"padding", {kHuge, 0, 0, 0}, "'padding' must be in 0.."}};
  const auto check = [](Node node, const Case& t) {
    node.ints[t.key] = t.numbers;
    expect_bad(node, t.message,
               node.op == "max_pool2d" ? std::optional(unit_qparams()) : std::nullopt);
  };
  for (const Case& t : window) {
    for (const Node& node : {conv2d_node(), pool_node("max_pool2d"), pool_node("avg_pool2d")})
      check(node, t);
  }
  check(conv2d_node(), {"groups", {0}, "'groups' must be in 1..4"});
  check(conv2d_node(), {"groups", {5}, "'groups' must be in 1..4"});
  check(conv2d_node(), {"groups", {-2}, "'groups' must be in 1..4"});
  check(conv2d_node(), {"groups", {3}, "4 output channels are no multiple of 3 groups"});
  for (const Node& node : {pool_node("max_pool2d"), pool_node("avg_pool2d")}) {
    check(node, {"kernel", {2}, "'kernel' must have 2 numbers"});
    check(node, {"kernel", {0, 2}, "'kernel' must be in 1.."});
    check(node, {"kernel", {2, kHuge}, "'kernel' must be in 1.."});
    check(node, {"padding", {2, 0, 0, 0}, "padding must be at most half of the kernel"});
    check(node, {"padding", {0, 0, 0, 2}, "padding must be at most half of the kernel"});
    check(node, {"ceil_mode", {2}, "'ceil_mode' must be in 0..1"});
    check(node, {"adaptive", {1}, "'adaptive' must have 2 numbers"});
    check(node, {"adaptive", {0, 1}, "'adaptive' must be in 1.."});
  }
  Node average = pool_node("avg_pool2d");
  average.ints["count_include_pad"] = {1};
  check(average, {"divisor_override", {-1}, "'divisor_override' must be in 0.."});
  average.ints["divisor_override"] = {0};
  check(average, {"count_include_pad", {7}, "'count_include_pad' must be in 0..1"});
}

TEST(ProgramTest, WrongMoves) {
  constexpr int64_t kLeast = std::numeric_limits<int64_t>::min();
  for (const std::vector<int64_t>& steps :
       std::vector<std::vector<int64_t>>{{0},             // ends behind a kind
                                         {0, 2, 1},       // or within arguments
                                         {4, 1, 1},       // no such kind
                                         {-1, 1, 1},      //
                                         {0, -1},         // no number of arguments
                                         {0, kLeast},     //
                                         {0, 2, -1, -1},  // two open sizes
                                         {1, 2, 0, 0},    // no permutation
                                         {1, 2, 0, 2},    //
                                         {1, 1, -1},      //
                                         {2, 1, 0},       // merge needs two
                                         {2, 2, 1, 0},    // in order
                                         {2, 2, -1, 0},   //
                                         {3, 2, 0, 0},    // parts of no size
                                         {3, 2, -1, 2}}) {
    expect_bad({.op = "move", .name = "view", .ints = {{"steps", steps}}},
               "move 'view': steps are damaged", unit_qparams());
  }
}

TEST(ProgramTest, WrongSlicesPadsAndUpsamplings) {
  constexpr int64_t kLeast = std::numeric_limits<int64_t>::min();
  const auto check = [](Node node, const char* key, const std::vector<int64_t>& numbers,
                        const char* message) {
    node.ints = {{key, numbers}};
    if (node.op == "pad" && !node.ints.contains("mode")) node.ints["mode"] = {0};
    expect_bad(node, message, unit_qparams());
  };
  check(slice_node(), "range", {0, 0, 1}, "must have 4 numbers");
  check(slice_node(), "range", {-1, 0, 1, 1}, "out of range");
  check(slice_node(), "range", {0, 0, 1, 0}, "out of range");
  check(slice_node(), "range", {0, 0, 1, -1}, "out of range");
  check(slice_node(), "range", {0, kLeast, 1, 1}, "'range' must be in");
  check(slice_node(), "chunk", {0, 2, 2}, "out of range");
  check(slice_node(), "chunk", {0, -1, 2}, "'chunk' must be in 0..");
  check(slice_node(), "chunk", {0, 0, 0}, "out of range");
  check(pad_node(), "pads", {1}, "pads must be two for each dimension");
  check(pad_node(), "pads", {int64_t{1} << 60, 0}, "pads must be two for each dimension");
  Node pad = pad_node();
  for (const int64_t mode : {-1, 4}) {
    pad.ints["mode"] = {mode};
    expect_bad(pad, "'mode' must be in 0..3", unit_qparams());
  }
  for (const char* op : {"upsample_nearest", "upsample_bilinear"}) {
    Node node = upsample_node(op);
    for (const std::vector<double>& scale :
         std::vector<std::vector<double>>{{}, {0, 2}, {-1, 2}, {kNan, 2}, {kInf, 2}}) {
      node.floats["scale"] = scale;
      expect_bad(node, "each size or scale must be", unit_qparams());
    }
    for (const std::vector<int64_t>& size :
         std::vector<std::vector<int64_t>>{{}, {0, 2}, {-1, 2}, {int64_t{1} << 40, 2}}) {
      node.ints["size"] = size;
      expect_bad(node, "each size or scale must be", unit_qparams());
    }
  }
  expect_bad({.op = "cat", .ints = {{"dim", {-1}}}}, "'dim' must be in 0..");
  expect_bad({.op = "cat", .ints = {{"dim", {0}}}}, "cat '': has 0 inputs", {}, 0);
}

TEST(ProgramTest, WrongTablesForEachIndexOfADimension) {
  Node table = table_node();
  table.ints["axis"] = {1};
  expect_bad(table, "tensor 'values' must be Float with 2 dimensions");
  table.tensors["values"] = full({3, 255}, 0.5);
  expect_bad(table, "values must have 256 elements in the last dimension, got 255");
  table.tensors["values"] = full({3, 256}, 0.5);
  for (const int64_t axis : {-1, 64}) {
    table.ints["axis"] = {axis};
    expect_bad(table, "'axis' must be in 0..63");
  }
  for (const int64_t axis : {1, 2}) {
    table.ints["axis"] = {axis};
    const Program program(single_node_graph(table));
    EXPECT_ERROR(
        c10::ValueError,
        "takes inputs with 3 indices along dimension " + std::to_string(axis) + ", got [2, 4]",
        program.run({full({2, 4}, 0)}));
  }
}

TEST(ProgramTest, WrongRowsByTheirOwnRange) {
  Node linear = linear_node();
  linear.op = "dynamic_linear";
  expect_bad(linear, "attribute 'quant_max' is missing");
  for (const int64_t quant_max : {0, 128}) {
    linear.ints["quant_max"] = {quant_max};
    expect_bad(linear, "'quant_max' must be in 1..127");
  }
  linear.ints["quant_max"] = {127};
  expect_bad(linear, "has 2 inputs, must have 1 to 1", {}, 2);
  for (const char* key : {"weight", "weight_scale", "bias"}) {
    Node node = linear;
    node.tensors.erase(key);
    expect_bad(node, "tensor '" + std::string(key) + "' is missing");
  }
  const Program program(single_node_graph(linear));
  EXPECT_ERROR(c10::ValueError, "takes inputs [..., 6] or images with so many channels, got [2, 5]",
               program.run({full({2, 5}, 0)}));
  expect_bad({.op = "dynamic_fake_quantize", .ints = {{"quant_max", {7}}}},
             "the output must be float32", unit_qparams());
}

TEST(ProgramTest, WrongTransposedConvolutions) {
  expect_bad(conv_transpose2d_node(), "has 2 inputs, must have 1 to 1", {}, 2);
  struct Case {
    const char* key;
    std::vector<int64_t> numbers;
    const char* message;
  };
  for (const Case& t :
       std::vector<Case>{{"stride", {1}, "'stride' must have 2 numbers"},
                         {"stride", {0, 1}, "'stride' must be in 1.."},
                         {"stride", {1, int64_t{1} << 40}, "'stride' must be in 1.."},
                         {"dilation", {0, 1}, "'dilation' must be in 1.."},
                         {"padding", {-1, 0}, "'padding' must be in 0.."},
                         {"padding", {int64_t{1} << 40, 0}, "'padding' must be in 0.."},
                         {"output_padding", {0, -1}, "'output_padding' must be in 0.."}}) {
    Node node = conv_transpose2d_node();
    node.ints.erase(t.key);
    expect_bad(node, "attribute '" + std::string(t.key) + "' is missing");
    node.ints[t.key] = t.numbers;
    expect_bad(node, t.message);
  }
  Node many = conv_transpose2d_node();
  many.op = "conv_transpose3d";
  many.tensors["weight"] = many.tensors["weight"].unsqueeze(2);
  many.ints = {{"stride", {64, 64, 2}},
               {"dilation", {1, 1, 1}},
               {"padding", {0, 0, 0}},
               {"output_padding", {0, 0, 0}}};
  expect_bad(many, "the strides may multiply to 4096 at most, got 8192");
  const Program program(single_node_graph(conv_transpose2d_node()));
  EXPECT_ERROR(c10::ValueError, "takes 4 channels, got an input of shape [1, 3, 2, 2]",
               program.run({full({1, 3, 2, 2}, 0)}));
  Node node = conv_transpose2d_node();
  node.ints["padding"] = {2, 2};
  EXPECT_ERROR(c10::ValueError, "nothing is left of an input of shape [1, 4, 2, 2]",
               Program(single_node_graph(node)).run({full({1, 4, 2, 2}, 0)}));
  node.ints["padding"] = {0, 0};
  node.ints["output_padding"] = {1 << 20, 1 << 20};
  EXPECT_ERROR(c10::ValueError, "takes images of less than 2^31 elements",
               Program(single_node_graph(node)).run({full({1, 4, 2, 2}, 0)}));
}

TEST(ProgramTest, WrongMeans) {
  for (const std::vector<int64_t>& dims :
       std::vector<std::vector<int64_t>>{{}, {-1}, {64}, {1, 1}}) {
    expect_bad({.op = "mean", .name = "m", .ints = {{"dims", dims}}}, "mean 'm': dims must differ");
  }
  expect_bad({.op = "mean"}, "attribute 'dims' is missing");
  const Program mean(single_node_graph({.op = "mean", .name = "m", .ints = {{"dims", {1}}}}));
  EXPECT_ERROR(c10::ValueError, "mean 'm' over dimensions [1] got an input of shape [2]",
               mean.run({full({2}, 0)}));
  EXPECT_ERROR(c10::ValueError, "of no elements", mean.run({full({2, 0}, 0)}));
  EXPECT_EQ(mean.run({full({0, 2}, 0)})[0].sizes(), at::IntArrayRef({0, 1}));
}

TEST(ProgramTest, WrongClamps) {
  for (const std::vector<double>& clamp :
       std::vector<std::vector<double>>{{}, {0}, {0, 1, 2}, {1, 0}, {kNan, 1}, {0, kNan}}) {
    for (Node node : {conv2d_node(), linear_node(), pool_node("avg_pool2d"), table_node()}) {
      node.floats["clamp"] = clamp;
      expect_bad(node, "attribute 'clamp' must be [min, max]");
    }
  }
}

TEST(ProgramTest, WrongWeights) {
  const auto with = [](Node node, const char* key, const at::Tensor& tensor) {
    node.tensors[key] = tensor;
    return node;
  };
  const Node conv = conv2d_node();
  const Node linear = linear_node();
  expect_bad(with(conv, "weight", full({4, 4, 3, 3}, 1)),
             "tensor 'weight' must be Char with 4 dimensions");
  expect_bad(with(conv, "weight", full({4, 4, 3, 3}, 1, at::kByte)), "got Byte [4, 4, 3, 3]");
  expect_bad(with(conv, "weight", full({4, 4, 9}, 1, at::kChar)), "got Char [4, 4, 9]");
  for (const auto& sizes :
       {std::vector<int64_t>{0, 4, 3, 3}, {4, 0, 3, 3}, {4, 4, 0, 3}, {4, 4, 3, 0}}) {
    expect_bad(with(conv, "weight", full(sizes, 1, at::kChar)), "none of them 0");
  }
  expect_bad(with(conv, "weight", full({4, 4, 3, 3}, 1, at::kChar).to(at::kMeta)),
             "tensor 'weight' must be a dense CPU tensor");
  expect_bad(with(linear, "weight", full({3, 6}, 1, at::kInt)),
             "tensor 'weight' must be Char with 2 dimensions");
  expect_bad(with(linear, "weight", full({3, 0}, 1, at::kChar)), "none of them 0");
  for (const Node& node : {conv, linear}) {
    const int64_t n = node.tensors.at("weight").size(0);
    const auto channels = [&](double last) {
      at::Tensor t = full({n}, 1);
      t[n - 1] = last;
      return t;
    };
    const std::string last = "[" + std::to_string(n - 1) + "]";
    expect_bad(with(node, "weight_scale", full({n + 1}, 1)),
               "must have " + std::to_string(n) + " elements");
    expect_bad(with(node, "bias", full({n - 1}, 1)),
               "must have " + std::to_string(n) + " elements");
    expect_bad(with(node, "weight_scale", full({n}, 1, at::kDouble)),
               "tensor 'weight_scale' must be Float");
    expect_bad(with(node, "bias", full({n}, 1, at::kInt)), "tensor 'bias' must be Float");
    expect_bad(with(node, "bias", full({n, 1}, 1)),
               "tensor 'bias' must be Float with 1 dimensions");
    // The product with the input's scale, 1/128, must be a valid scale too: the last one's is
    // denormal.
    for (const double scale : {0.0, -1.0, kInf, kNan, 1e-40, 0x1p-120}) {
      expect_bad(with(node, "weight_scale", channels(scale)),
                 "weight_scale" + last + " times the input's scale");
    }
    for (const double bias : {kNan, kInf, -kInf}) {
      expect_bad(with(node, "bias", channels(bias)), "bias" + last + " must be finite");
    }
  }
}

TEST(ProgramTest, TooManyProducts) {
  Node linear = linear_node();
  linear.tensors["weight"] = full({3, 65536}, 1, at::kChar);
  EXPECT_NO_THROW(Program(single_node_graph(linear)));
  linear.tensors["weight"] = full({3, 65537}, 1, at::kChar);
  expect_bad(linear, "'fc': an output may sum at most 65536 products, has 65537");
  Node conv = conv2d_node();
  conv.tensors["weight"] = full({4, 7282, 3, 3}, 1, at::kChar);
  expect_bad(conv, "'conv': an output may sum at most 65536 products, has 65538");
}

// ---- What a program refuses to run on ------------------------------------------------

// float32 in, codes between, float32 out.
Program copy_program(size_t inputs = 1) {
  Graph graph;
  for (size_t i = 0; i < inputs; ++i) {
    graph.outputs.push_back(dequantize(graph, quantize(graph, add_input(graph), unit_qparams())));
  }
  return Program(graph);
}

TEST(ProgramTest, WrongInputs) {
  const Program program(single_node_graph(conv2d_node(), unit_qparams(), 2));
  const at::Tensor x = full({2, 4, 5, 5}, 0.5);
  EXPECT_NO_THROW(program.run({x, x}));
  EXPECT_ERROR(c10::ValueError, "takes 2 inputs, got 1", program.run({x}));
  EXPECT_ERROR(c10::ValueError, "takes 2 inputs, got 0", program.run({}));
  EXPECT_ERROR(c10::ValueError, "takes 2 inputs, got 3", program.run({x, x, x}));
  EXPECT_ERROR(c10::TypeError, "input 1 must be float32, got Double",
               program.run({x, x.to(at::kDouble)}));
  EXPECT_ERROR(c10::TypeError, "input 0 must be float32, got Byte",
               program.run({x.to(at::kByte), x}));
  EXPECT_ERROR(c10::ValueError, "input 0 must be a dense tensor on the CPU, got meta",
               program.run({x.to(at::kMeta), x}));
  EXPECT_ERROR(c10::ValueError, "input 0 must be a dense tensor", program.run({x.to_sparse(), x}));
  EXPECT_ERROR(c10::ValueError, "'conv' takes 4 channels, got an input of shape [2, 3, 5, 5]",
               program.run({x.narrow(1, 0, 3), x}));
  EXPECT_ERROR(c10::ValueError, "'conv' takes inputs of 4 dimensions", program.run({x[0], x[0]}));
  EXPECT_ERROR(
      c10::ValueError,
      "'conv': what is added must have the shape of the output, [2, 4, 5, 5], got [1, 4, 5, 5]",
      program.run({x, x.narrow(0, 0, 1)}));
  // A shape that failed does not stay.
  EXPECT_ERROR(c10::ValueError, "what is added", program.run({x, x.narrow(0, 0, 1)}));
}

TEST(ProgramTest, ShapesThatAnOperatorCannotTake) {
  Node conv = conv2d_node();
  conv.ints["padding"] = {0, 0, 0, 0};
  EXPECT_ERROR(c10::ValueError, "a window of 3 does not fit a padded input of 2",
               Program(single_node_graph(conv)).run({full({1, 4, 2, 5}, 0)}));
  const Program linear(single_node_graph(linear_node()));
  EXPECT_ERROR(c10::ValueError, "linear 'fc' takes inputs [..., 6]", linear.run({full({2, 5}, 0)}));
  EXPECT_ERROR(c10::ValueError, "of any number of dimensions but 4",
               linear.run({full({1, 1, 2, 6}, 0)}));
  EXPECT_ERROR(c10::ValueError, "linear 'fc' takes inputs [..., 6]", linear.run({full({}, 0)}));
  EXPECT_ERROR(
      c10::ValueError, "'fc': what is added must have the shape of the output, [2, 3], got [2, 1]",
      Program(single_node_graph(linear_node(), {}, 2)).run({full({2, 6}, 0), full({2, 1}, 0)}));
  const Program add(single_node_graph({.op = "add", .name = "sum"}, {}, 2));
  EXPECT_ERROR(c10::ValueError,
               "'sum' takes two inputs whose shapes broadcast, got [2, 3] and [4, 3]",
               add.run({full({2, 3}, 0), full({4, 3}, 0)}));
  const Program pool(single_node_graph(pool_node("avg_pool2d")));
  EXPECT_ERROR(c10::ValueError, "'pool' takes inputs of 4 dimensions", pool.run({full({4, 6}, 0)}));
  EXPECT_ERROR(c10::ValueError, "a window of 2 does not fit", pool.run({full({1, 3, 1, 6}, 0)}));
  const auto move = [](MoveKind kind, const std::vector<int64_t>& arguments) {
    Node node{.op = "move", .name = "flat"};
    add_move(node.ints["steps"], kind, arguments);
    return Program(single_node_graph(node, unit_qparams()));
  };
  for (const std::vector<int64_t>& sizes : std::vector<std::vector<int64_t>>{
           {-1, 3}, {3, 3}, {-2, 6}, {2, 5, -4}, {0, -1}, {std::numeric_limits<int64_t>::min()}}) {
    EXPECT_ERROR(c10::ValueError, "move 'flat' cannot make the sizes",
                 move(MoveKind::reshape, sizes).run({full({2, 5}, 0)}));
  }
  EXPECT_ERROR(c10::ValueError, "of a tensor of shape [2, 5], made from an input of shape [2, 5]",
               move(MoveKind::reshape, {3, 3}).run({full({2, 5}, 0)}));
  EXPECT_ERROR(c10::ValueError, "move 'flat' cannot permute dimensions [0, 2, 1]",
               move(MoveKind::permute, {0, 2, 1}).run({full({2, 5}, 0)}));
  EXPECT_ERROR(c10::ValueError, "move 'flat' cannot merge dimensions [1, 2]",
               move(MoveKind::merge, {1, 2}).run({full({2, 5}, 0)}));
  EXPECT_ERROR(c10::ValueError, "move 'flat' cannot split off",
               move(MoveKind::split, {1, 2}).run({full({2, 5}, 0)}));
  EXPECT_ERROR(c10::ValueError, "move 'flat' cannot split off",
               move(MoveKind::split, {2, 1}).run({full({2, 5}, 0)}));
  const Program cat(single_node_graph(cat_node(), {}, 2));
  EXPECT_ERROR(c10::ValueError, "takes inputs that differ in dimension 1 only",
               cat.run({full({2, 3}, 0), full({3, 3}, 0)}));
  EXPECT_ERROR(c10::ValueError, "takes inputs that differ in dimension 1 only",
               cat.run({full({2, 3}, 0), full({2, 3, 1}, 0)}));
  EXPECT_ERROR(c10::ValueError, "along dimension 1 got an input of shape [2]",
               cat.run({full({2}, 0), full({2}, 0)}));
  EXPECT_ERROR(c10::ValueError, "takes dimension 1, which an input of shape [2] lacks",
               Program(single_node_graph(slice_node(), unit_qparams())).run({full({2}, 0)}));
  Node pad = pad_node();
  EXPECT_ERROR(c10::ValueError, "has pads for 1 dimensions",
               Program(single_node_graph(pad, unit_qparams())).run({full({}, 0)}));
  for (const auto& [mode, pads] : std::vector<std::pair<int64_t, std::vector<int64_t>>>{
           {1, {3, 0}}, {1, {0, 3}}, {3, {4, 0}}, {0, {-2, -2}}}) {
    pad.ints = {{"mode", {mode}}, {"pads", pads}};
    EXPECT_ERROR(c10::ValueError, "cannot add",
                 Program(single_node_graph(pad, unit_qparams())).run({full({2, 3}, 0)}));
  }
  const Program nearest(single_node_graph(upsample_node("upsample_nearest"), unit_qparams()));
  EXPECT_ERROR(c10::ValueError, "takes inputs of 4 dimensions", nearest.run({full({2, 3}, 0)}));
  const Program bilinear(single_node_graph(upsample_node("upsample_bilinear")));
  EXPECT_ERROR(c10::ValueError, "takes inputs of 4 dimensions", bilinear.run({full({2, 3}, 0)}));
}

// Sizes whose product is that of the input only in 64 bits: what comes after would run over its
// memory.
TEST(ProgramTest, ReshapeToSizesWhoseProductOverflows) {
  const Program program(
      single_node_graph(reshape_node({(int64_t{1} << 62) + 4, 4}), unit_qparams()));
  EXPECT_ERROR(c10::ValueError, "cannot make the sizes", program.run({full({16}, 0)}));
}

// Dropping dimensions that hold more than one pixel would make the output too small for them.
TEST(ProgramTest, SqueezeOfMoreThanOnePixel) {
  const Node node{
      .op = "avg_pool2d", .name = "mean", .ints = {{"adaptive", {8, 8}}, {"squeeze", {1}}}};
  expect_bad(node, "'mean': only one pixel can be squeezed");
}

TEST(ProgramTest, EmptyBatch) {
  Network network(1);
  const auto x = network.input({2, 4, 6, 6});
  const auto conv =
      network.requantize(network.conv2d(x, {.out_channels = 5, .kernel = {3, 3}}, false));
  const auto pool =
      network.max_pool2d(conv, {.kernel = {2, 2}, .stride = {2, 2}, .padding = {0, 0}}, {1, 1});
  const auto average = network.requantize(network.adaptive_avg_pool2d(pool, {1, 1}, false));
  network.output(network.linear(network.flatten(average), 7, false));
  network.output(network.add(pool, pool));
  const Program program(network.graph());
  const auto empty = program.run({full({0, 4, 6, 6}, 0)});
  EXPECT_EQ(empty.at(0).sizes(), at::IntArrayRef({0, 7}));
  EXPECT_EQ(empty.at(1).sizes(), at::IntArrayRef({0, 5, 2, 2}));
  EXPECT_TRUE(network.is_expected(program.run(network.inputs())));
}

// A convolution with padding would make pixels out of none, and PyTorch's refuses to.
TEST(ProgramTest, ImagesWithoutPixels) {
  const at::Tensor x = full({1, 4, 0, 3}, 0);
  Node conv = conv2d_node();
  conv.ints["padding"] = {2, 2, 2, 2};
  EXPECT_ERROR(c10::ValueError, "'conv' takes", Program(single_node_graph(conv)).run({x}));
  const Node average{.op = "avg_pool2d", .name = "pool", .ints = {{"adaptive", {1, 1}}}};
  EXPECT_ERROR(c10::ValueError, "'pool' takes", Program(single_node_graph(average)).run({x}));
}

// ---- How it runs ---------------------------------------------------------------------

TEST(ProgramTest, OutputsAreChannelsLastImages) {
  const auto y = copy_program().run({full({2, 3, 4, 5}, 0.5)})[0];
  EXPECT_TRUE(y.is_contiguous(at::MemoryFormat::ChannelsLast));
  EXPECT_TRUE(testing::same_bits(y, full({2, 3, 4, 5}, 0.5)));
  EXPECT_TRUE(copy_program().run({full({2, 3, 4}, 0.5)})[0].is_contiguous());
}

TEST(ProgramTest, InputsStayAndOutputsAreNew) {
  const Program program = copy_program();
  const at::Tensor x = full({3, 5}, 0.5);
  const at::Tensor first = program.run({x})[0];
  const at::Tensor second = program.run({full({3, 5}, -0.25)})[0];
  EXPECT_TRUE(testing::same_bits(x, full({3, 5}, 0.5)));
  EXPECT_TRUE(testing::same_bits(first, full({3, 5}, 0.5)));
  EXPECT_TRUE(testing::same_bits(second, full({3, 5}, -0.25)));
}

// Many values of different sizes that live for different times share one arena.
TEST(ProgramTest, ValuesShareMemoryOnlyWhereTheyMay) {
  for (unsigned seed = 0; seed < 30; ++seed) {
    SCOPED_TRACE(::testing::Message() << "seed " << seed);
    Network network(seed);
    auto& random = network.random;
    // Families of one shape each.
    std::vector<std::vector<Network::Tensor>> families;
    for (int i = 0; i < 3; ++i)
      families.push_back({network.input({random.integer(1, 4), random.integer(1, 90)})});
    for (int i = 0; i < 25; ++i) {
      auto& family = families[static_cast<size_t>(random.integer(0, 2))];
      const auto any = [&] {
        const auto last = static_cast<int64_t>(family.size()) - 1;
        return family[static_cast<size_t>(random.integer(0, last))];
      };
      const auto a = any();
      const auto made = random.chance(0.2) ? network.requantize(a) : network.add(a, any());
      if (made.q) family.push_back(made);
      if (!made.q || random.chance(0.1)) network.output(made);
    }
    for (const auto& family : families) network.output(network.requantize(family.back()));
    network.check();
    if (HasFatalFailure()) return;
  }
}

// A layer's sum may take the memory of what is added, but not where that is read again, then or
// later.
TEST(ProgramTest, SumsInPlace) {
  testing::Random random(3);
  for (const bool linear : {false, true}) {
    const std::vector<int64_t> sizes =
        linear ? std::vector<int64_t>{37, 96} : std::vector<int64_t>{2, 96, 7, 9};
    const at::Tensor x = testing::random_floats(random, sizes, -1, 1);
    const at::Tensor added = testing::random_floats(random, sizes, -1, 1);
    Node layer = linear ? linear_node() : conv2d_node();
    at::Tensor weight =
        full(linear ? at::IntArrayRef{96, 96} : at::IntArrayRef{96, 96, 3, 3}, 0, at::kChar);
    for (int64_t i = 0; i < weight.numel(); ++i) {
      weight.mutable_data_ptr<int8_t>()[i] = static_cast<int8_t>(random.integer(-9, 9));
    }
    layer.tensors = {
        {"weight", weight}, {"weight_scale", full({96}, 0.01)}, {"bias", full({96}, 0.1)}};
    // Sums, each added to what the one before it made; outputs: the last, and all others and what
    // was added if they are read again.
    const auto run = [&](int count, bool same_input, bool read_again) {
      Graph graph;
      const int64_t in = quantize(graph, add_input(graph), unit_qparams());
      int64_t sum = same_input ? in : quantize(graph, add_input(graph), unit_qparams());
      std::vector<int64_t> sums{sum};
      for (int i = 0; i < count; ++i) {
        layer.inputs = {in, sum};
        sum = add_node(graph, layer, unit_qparams());
        sums.push_back(sum);
      }
      graph.outputs = {dequantize(graph, sum)};
      if (read_again) {
        for (const int64_t value : sums) graph.outputs.push_back(dequantize(graph, value));
      }
      return Program(std::move(graph)).run(same_input ? std::vector{x} : std::vector{x, added});
    };
    const auto kept = run(3, false, true);
    const auto taken = run(3, false, false);
    EXPECT_TRUE(testing::same_bits(taken[0], kept[0]));
    EXPECT_TRUE(testing::same_bits(kept[4], kept[0]));
    EXPECT_FALSE(testing::same_bits(kept[1], kept[2]));
    for (const int count : {1, 3}) {
      EXPECT_TRUE(testing::same_bits(run(count, true, false)[0], run(count, true, true)[0]));
    }
    // What is read again was not written to.
    EXPECT_TRUE(
        testing::same_bits(kept[1], at::clamp(at::round(added * 128), -128, 127) / 128 + 0.0));
  }
}

// Layers whose results are put together write them where the whole is, also where a pooling reads
// them; other readers need them for themselves.
TEST(ProgramTest, PartsAreMadeInTheWhole) {
  testing::Random random(5);
  const auto layer = [&](Node node, at::IntArrayRef sizes) {
    at::Tensor weight = full(sizes, 0, at::kChar);
    for (int64_t i = 0; i < weight.numel(); ++i) {
      weight.mutable_data_ptr<int8_t>()[i] = static_cast<int8_t>(random.integer(-40, 40));
    }
    node.tensors = {{"weight", weight},
                    {"weight_scale", full({sizes[0]}, 0.005)},
                    {"bias", full({sizes[0]}, 0.1)}};
    return node;
  };
  const Node conv = layer(conv2d_node(), {21, 8, 3, 3});
  const Node wide = layer(conv2d_node(), {70, 8, 3, 3});
  const Node up = layer(conv_transpose2d_node(), {9, 8, 2, 2});
  Node depthwise = layer(conv2d_node(), {8, 1, 3, 3});
  depthwise.ints["groups"] = {8};
  const QParams other = make_qparams(1.0 / 100, 128, 0, 255);
  const at::Tensor x = testing::random_floats(random, {2, 8, 6, 10}, -1, 1);
  const at::Tensor half = testing::random_floats(random, {2, 8, 3, 5}, -1, 1);
  // Outputs: the whole, a pooling of the first part and, where `apart`, all parts.
  const auto run = [&](bool apart, std::vector<Recording::Entry>* entries) {
    Graph graph;
    const int64_t in = quantize(graph, add_input(graph), unit_qparams());
    const int64_t small = quantize(graph, add_input(graph), unit_qparams());
    std::vector<int64_t> parts;
    const auto add_part = [&](Node node, int64_t input, const QParams& qparams) {
      node.inputs = {input};
      parts.push_back(add_node(graph, node, qparams));
      graph.values.back().name = "part" + std::to_string(parts.size());
    };
    add_part(conv, in, unit_qparams());
    add_part(wide, in, other);  // its codes are not the whole's
    add_part(up, small, unit_qparams());
    add_part(depthwise, in, unit_qparams());
    Node pool = pool_node("max_pool2d");
    pool.inputs = {parts[0]};
    const int64_t pooled = add_node(graph, pool, unit_qparams());
    Node cat = cat_node();
    cat.inputs = parts;
    const int64_t whole = add_node(graph, cat, unit_qparams());
    graph.outputs = {dequantize(graph, whole), dequantize(graph, pooled)};
    if (apart) {
      for (const int64_t part : parts) graph.outputs.push_back(dequantize(graph, part));
    }
    const Program program(std::move(graph));
    const Recording recording;
    auto outputs = program.run({x, half});
    if (entries != nullptr) *entries = recording.entries();
    return outputs;
  };
  std::vector<Recording::Entry> entries;
  const auto joined = run(false, &entries);
  const auto apart = run(true, nullptr);
  EXPECT_TRUE(testing::same_bits(joined[0], apart[0]));
  EXPECT_TRUE(testing::same_bits(joined[1], apart[1]));
  EXPECT_TRUE(testing::same_bits(joined[0].narrow(1, 0, 21), apart[2]));
  EXPECT_TRUE(testing::same_bits(joined[0].narrow(1, 91, 9), apart[4]));
  EXPECT_TRUE(testing::same_bits(joined[0].narrow(1, 100, 8), apart[5]));
  ASSERT_EQ(entries.size(), 4u);
  for (size_t i = 0; i < entries.size(); ++i) {
    EXPECT_TRUE(testing::same_bits(entries[i].value, apart[i + 2])) << "part " << i;
  }
}

TEST(ProgramTest, OneProgramInManyThreads) {
  Network network(1);
  const auto x = network.input({3, 3, 12, 12});
  const auto conv =
      network.conv2d(x, {.out_channels = 20, .kernel = {3, 3}, .stride = {2, 2}}, false);
  network.output(network.adaptive_avg_pool2d(network.requantize(conv), {2, 2}, false));
  const Program program(network.graph());
  // Batches of several sizes, so that some threads plan while others run.
  const auto run_batch = [&](int64_t n) {
    const at::Tensor y = program.run({network.inputs()[0].narrow(0, 0, n)}).at(0);
    return testing::same_bits(y, network.expected()[0].narrow(0, 0, n));
  };
  std::vector<std::string> failures(4);
  std::vector<std::thread> threads;
  for (size_t t = 0; t < failures.size(); ++t) {
    threads.emplace_back([&, t] {
      for (size_t i = 0; i < 100; ++i) {
        const auto same = run_batch(static_cast<int64_t>((i + t) % 3 + 1));
        if (!same) failures[t] = same.message();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(failures, std::vector<std::string>(4));
}

// ---- Weights ---------------------------------------------------------------------------

// Every operator that has weights, with codes of `bits` bits.
Graph layers(int64_t bits) {
  testing::Random random(static_cast<unsigned>(bits));
  const auto weight = [&](at::IntArrayRef sizes) {
    at::Tensor t = at::empty(sizes, at::kChar);
    for (int64_t i = 0; i < t.numel(); ++i) {
      t.mutable_data_ptr<int8_t>()[i] =
          static_cast<int8_t>(random.integer(-(1 << (bits - 1)), (1 << (bits - 1)) - 1));
    }
    return t;
  };
  Graph graph;
  const int64_t image = quantize(graph, add_input(graph), unit_qparams());
  const int64_t row = quantize(graph, add_input(graph), unit_qparams());
  const auto add = [&](Node node, int64_t input, at::IntArrayRef sizes) {
    node.inputs = {input};
    node.tensors = {{"weight", weight(sizes)},
                    {"weight_scale", full({sizes[0]}, 0.5)},
                    {"bias", full({sizes[0]}, 0.25)}};
    graph.outputs.push_back(add_node(graph, std::move(node)));
  };
  Node conv = conv2d_node();
  add(conv, image, {192, 64, 3, 3});
  conv.ints["groups"] = {4};
  add(conv, image, {256, 64, 3, 3});
  conv.ints["groups"] = {64};
  add(conv, image, {64, 1, 3, 3});
  add(conv_transpose2d_node(), image, {128, 64, 3, 3});
  add(linear_node(), row, {192, 256});
  return graph;
}

// Counts what tensors on the CPU take that were made after it.
class LiveBytes {
 public:
  LiveBytes()
      : counter_(std::make_shared<Counter>()),
        guard_(c10::DebugInfoKind::PROFILER_STATE, counter_) {}
  int64_t count() const { return counter_->bytes; }

 private:
  struct Counter : c10::MemoryReportingInfoBase {
    void reportMemoryUsage(void*, int64_t size, size_t, size_t, c10::Device) override {
      bytes += size;
    }
    bool memoryProfilingEnabled() const override { return true; }
    int64_t bytes = 0;
  };

  std::shared_ptr<Counter> counter_;
  c10::DebugInfoGuard guard_;
};

// Weights are in memory once, in as few bits as in the file: an operator's copy in its own order.
TEST(ProgramTest, WeightsAreKeptOnce) {
  for (const int64_t bits : {8, 4, 2}) {
    SCOPED_TRACE(::testing::Message() << bits << " bits");
    int64_t logical = 0;
    const LiveBytes live;
    std::unique_ptr<Program> program;
    {
      Graph graph = layers(bits);
      for (const Node& node : graph.nodes) {
        const auto weight = node.tensors.find("weight");
        if (weight != node.tensors.end()) logical += weight->second.numel();
      }
      program = std::make_unique<Program>(std::move(graph));
    }
    const int64_t kept = live.count();
    // Depthwise weights stay bytes (filled up from 9 to 12 or, as 16-bit numbers, 20); scales and
    // biases are tensors too.
    const int64_t others = 64 * 20 + 2 * 4 * (192 + 256 + 64 + 128 + 192);
    EXPECT_LE(kept, logical * bits / 8 * 105 / 100 + others);
    EXPECT_GE(kept, logical * bits / 8);
  }
}

TEST(ProgramTest, WeightsComeBackAsTheyWere) {
  for (const int64_t bits : {8, 4, 2}) {
    const Graph graph = layers(bits);
    std::vector<at::Tensor> weights;
    for (const Node& node : graph.nodes) {
      const auto weight = node.tensors.find("weight");
      weights.push_back(weight == node.tensors.end() ? at::Tensor() : weight->second);
    }
    const Graph back = Program(graph).graph();
    ASSERT_EQ(back.nodes.size(), weights.size());
    for (size_t n = 0; n < weights.size(); ++n) {
      ASSERT_EQ(back.nodes[n].tensors.count("weight"), weights[n].defined() ? 1u : 0u);
      if (weights[n].defined()) {
        EXPECT_TRUE(back.nodes[n].tensors.at("weight").equal(weights[n]))
            << back.nodes[n].op << ", " << bits << " bits";
      }
    }
  }
}

TEST(ProgramTest, MoreShapesThanPlansAreKept) {
  const Program program = copy_program();
  for (int round = 0; round < 3; ++round) {
    for (int64_t n = 1; n <= 40; ++n) {
      const at::Tensor x = full({n, 2}, static_cast<double>(n) / 64);
      EXPECT_TRUE(testing::same_bits(program.run({x})[0], x)) << n;
    }
  }
}

TEST(ProgramTest, SeveralInputsAndOutputsKeepTheirOrder) {
  const Program program = copy_program(3);
  const auto y = program.run({full({1}, 0.25), full({2, 2}, 0.5), full({3}, -0.5)});
  ASSERT_EQ(y.size(), 3u);
  EXPECT_TRUE(testing::same_bits(y[0], full({1}, 0.25)));
  EXPECT_TRUE(testing::same_bits(y[1], full({2, 2}, 0.5)));
  EXPECT_TRUE(testing::same_bits(y[2], full({3}, -0.5)));
}

TEST(ProgramTest, RunsUnderAutogradWithoutIt) {
  const at::Tensor x = full({2, 3}, 0.5).requires_grad_(true);
  EXPECT_FALSE(copy_program().run({x})[0].requires_grad());
}

}  // namespace
}  // namespace qatx::engine
