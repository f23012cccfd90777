#include "qatx/convert/convert.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/equal.h>
#include <torch/csrc/jit/frontend/resolver.h>
#include <torch/csrc/jit/serialization/import.h>

#include <cmath>
#include <limits>
#include <sstream>

#include "../tensor_testing.h"
#include "qatx/engine/program.h"

namespace qatx {
namespace {

namespace jit = torch::jit;

using testing::floats;
using testing::Random;
using testing::random_floats;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInf = std::numeric_limits<float>::infinity();

// Knows torch.f and qatx.f.
struct Operators : jit::Resolver {
  std::shared_ptr<jit::SugaredValue> resolveValue(const std::string& name, jit::GraphFunction&,
                                                  const jit::SourceRange&) override {
    if (name != "torch" && name != "qatx") return nullptr;
    return std::make_shared<jit::BuiltinModule>(name == "torch" ? "aten" : name);
  }
};

// A TorchScript module written as source. Its scales are powers of two and its biases multiples of
// the products' unit, so that float arithmetic makes no error, whatever its order, and the
// converted model must give the same numbers.
class Model {
 public:
  Model() : random_(1) {
    module_.register_buffer("a_scale", floats({0x1p-4f}));
    module_.register_buffer("a_zero", floats({100.0f}));
    source_ = R"(
def a(self, x):
    return qatx.fake_quantize(x, self.a_scale, self.a_zero, 0, 255)
)";
  }

  // A weight of these sizes, self.NAME_weight; as fake-quantized self.NAME(); and self.NAME_bias.
  Model& weight(const std::string& name, const std::vector<int64_t>& sizes) {
    std::vector<float> scales;
    std::vector<float> biases;
    for (int64_t c = 0; c < sizes[0]; ++c) {
      scales.push_back(c % 3 == 0 ? 0x1p-7f : 0x1p-6f);
      biases.push_back(static_cast<float>(random_.integer(-2000, 2000)) * 0x1p-11f);
    }
    // Many lie in the middle between two codes.
    at::Tensor weight = at::empty(sizes, at::kFloat);
    for (int64_t i = 0; i < weight.numel(); ++i) {
      weight.mutable_data_ptr<float>()[i] =
          static_cast<float>(random_.integer(-300, 300)) * 0x1p-8f;
    }
    module_.register_parameter(name + "_weight", weight, false);
    module_.register_parameter(name + "_bias", floats(biases), false);
    module_.register_buffer(name + "_scale", floats(scales));
    module_.register_buffer(name + "_zero", floats(std::vector<float>(scales.size())));
    source_ += "\ndef " + name + "(self):\n    return qatx.fake_quantize(self." + name +
               "_weight, self." + name + "_scale, self." + name + "_zero, -128, 127, 0)\n";
    return *this;
  }

  Model& buffer(const std::string& name, const at::Tensor& value) {
    module_.register_buffer(name, value);
    return *this;
  }

  Model& submodule(const std::string& name, const jit::Module& module) {
    module_.register_module(name, module);
    return *this;
  }

  // `body` is forward's, a line each, of arguments x (and, when two are wanted, y).
  jit::Module define(const std::string& body, const std::string& arguments = "x") {
    std::istringstream lines(body);
    source_ += "\ndef forward(self, " + arguments + "):\n";
    for (std::string line; std::getline(lines, line);) source_ += "    " + line + "\n";
    module_.define(source_, std::make_shared<Operators>());
    return module_;
  }

 private:
  Random random_;
  jit::Module module_{"Model"};
  std::string source_;
};

at::Tensor image(unsigned seed, at::IntArrayRef sizes = {2, 3, 8, 8}) {
  Random random(seed);
  return random_floats(random, sizes, -8.0f, 12.0f);
}

// What to convolve and multiply with: 3 channels in, 6 within, 5 classes out.
Model model() {
  Model m;
  m.weight("conv", {6, 3, 3, 3})
      .weight("second", {6, 6, 3, 3})
      .weight("depthwise", {6, 1, 3, 3})
      .weight("fc", {5, 6});
  return m;
}

const char* const kNetwork = R"(x = self.a(x)
x = self.a(torch.relu(torch.conv2d(x, self.conv(), self.conv_bias, [1, 1], [1, 1])))
y = torch.conv2d(x, self.second(), self.second_bias, [1, 1], [1, 1])
x = self.a(torch.relu(y + x))
x = torch.max_pool2d(x, [2, 2], [2, 2])
x = self.a(torch.conv2d(x, self.depthwise(), self.depthwise_bias, [1, 1], [1, 1], [1, 1], 6))
x = self.a(torch.adaptive_avg_pool2d(x, [1, 1]))
return torch.linear(torch.flatten(x, 1), self.fc(), self.fc_bias))";

at::Tensor run(jit::Module module, const std::vector<c10::IValue>& inputs) {
  return module.forward(inputs).toTensor();
}

// Equal numbers for the example inputs; nearly equal ones where sums are taken in float, whose
// order is Torch's choice.
Converted convert_checked(jit::Module source, const std::vector<c10::IValue>& inputs,
                          bool exact = true) {
  const at::Tensor expected = run(source, inputs);
  Converted converted = convert(source, inputs);
  const at::Tensor actual = run(converted.module, inputs);
  EXPECT_TRUE(exact ? at::equal(actual, expected) : at::allclose(actual, expected, 1e-5, 1e-5));
  return converted;
}

size_t program_count(const jit::Module& module) {
  size_t count = 0;
  for (const auto& attribute : module.named_attributes()) {
    count += attribute.name.starts_with("program_") ? 1 : 0;
  }
  return count;
}

const NodeReport& find(const ConversionReport& report, const std::string& kind) {
  for (const NodeReport& node : report.nodes) {
    if (node.kind == kind) return node;
  }
  throw std::runtime_error("no " + kind + " in the report");
}

std::string save(const jit::Module& module) {
  std::ostringstream out;
  module.save(out);
  return std::move(out).str();
}

TEST(ConvertTest, ANetworkBecomesOneProgram) {
  const auto [module, report] = convert_checked(model().define(kNetwork), {image(1)});
  for (const NodeReport& node : report.nodes) {
    EXPECT_TRUE(node.integer) << node.kind << ": " << node.reason;
    EXPECT_EQ(node.reason, "") << node.kind;
  }
  EXPECT_EQ(program_count(module), 1u);
}

TEST(ConvertTest, ReportsBytesAndMultiplyAdds) {
  const auto [module, report] = convert_checked(model().define(kNetwork), {image(1)});
  std::vector<std::tuple<std::string, int64_t, int64_t>> layers;
  for (const NodeReport& node : report.nodes) {
    if (node.macs > 0) layers.emplace_back(node.kind, node.weight_bytes, node.macs);
  }
  const std::vector<std::tuple<std::string, int64_t, int64_t>> expected = {
      {"aten::conv2d", 6 * 3 * 9, 2 * 64 * 6 * 3 * 9},
      {"aten::conv2d", 6 * 6 * 9, 2 * 64 * 6 * 6 * 9},
      {"aten::conv2d", 6 * 9, 2 * 16 * 6 * 9},
      {"aten::linear", 5 * 6, 2 * 5 * 6}};
  EXPECT_EQ(layers, expected);
}

TEST(ConvertTest, OtherBatchesAndImageSizes) {
  jit::Module source = model().define(kNetwork);
  Converted converted = convert(source, {image(1)});
  for (const auto& sizes :
       std::vector<std::vector<int64_t>>{{1, 3, 8, 8}, {5, 3, 8, 8}, {2, 3, 16, 4}}) {
    const at::Tensor x = image(2, sizes);
    EXPECT_TRUE(at::equal(run(converted.module, {x}), run(source, {x}))) << x.sizes();
    const at::Tensor channels_last = x.contiguous(at::MemoryFormat::ChannelsLast);
    EXPECT_TRUE(at::equal(run(converted.module, {channels_last}), run(source, {x}))) << x.sizes();
  }
  EXPECT_EQ(run(converted.module, {image(1).narrow(0, 0, 0)}).sizes(), at::IntArrayRef({0, 5}));
}

TEST(ConvertTest, TheSourceStaysAsItWas) {
  jit::Module source = model().define(kNetwork);
  const std::string graph = source.get_method("forward").graph()->toString();
  const at::Tensor before = run(source, {image(1)});
  convert(source, {image(1)});
  EXPECT_EQ(source.get_method("forward").graph()->toString(), graph);
  EXPECT_TRUE(at::equal(run(source, {image(1)}), before));
}

// Scales as training finds them: a code may differ by one where the float sum lies next to a tie.
TEST(ConvertTest, AnyScales) {
  Model m;
  Random random(3);
  m.weight("conv", {6, 3, 3, 3}).buffer("w_scale", random_floats(random, {6}, 0.005f, 0.011f));
  m.buffer("in_scale", floats({0.0731f})).buffer("out_scale", floats({0.0917f}));
  jit::Module source = m.define(R"(x = qatx.fake_quantize(x, self.in_scale, self.a_zero, 0, 255)
w = qatx.fake_quantize(self.conv_weight, self.w_scale, self.conv_zero, -128, 127, 0)
return qatx.fake_quantize(torch.relu(torch.conv2d(x, w, self.conv_bias)), self.out_scale, self.a_zero, 0, 255))");
  const at::Tensor x = image(4, {4, 3, 40, 40});
  const at::Tensor expected = run(source, {x});
  const at::Tensor actual = run(convert(source, {x}).module, {x}).contiguous();
  ASSERT_EQ(actual.sizes(), expected.sizes());
  int64_t differ = 0;
  for (int64_t i = 0; i < expected.numel(); ++i) {
    const float difference =
        std::abs(actual.const_data_ptr<float>()[i] - expected.const_data_ptr<float>()[i]);
    ASSERT_LE(difference, 0.0918f) << i;
    differ += difference > 0 ? 1 : 0;
  }
  EXPECT_LE(differ, expected.numel() / 10000);
}

TEST(ConvertTest, SignedAndNarrowCodes) {
  for (const char* codes : {"-128, 127", "-8, 7", "0, 15", "-5, 90", "-1, 2"}) {
    Model m = model();
    m.buffer("s_zero", floats({-3.4f}));
    const std::string quantize = ", self.a_scale, self.s_zero, " + std::string(codes) + ")";
    const auto [module, report] = convert_checked(
        m.define("x = qatx.fake_quantize(x" + quantize +
                 "\nreturn qatx.fake_quantize(torch.conv2d(x, self.conv(), self.conv_bias)" +
                 quantize),
        {image(1)});
    EXPECT_TRUE(find(report, "aten::conv2d").integer) << codes;
  }
}

TEST(ConvertTest, UnknownOperatorsStayFloatBetweenPrograms) {
  const auto [module, report] =
      convert_checked(model().define(R"(x = torch.conv2d(self.a(x), self.conv(), self.conv_bias)
x = self.a(torch.cumsum(x, 1))
x = torch.conv2d(x, self.second(), self.second_bias)
return torch.flatten(torch.cumsum(x, 1), 1))"),
                      {image(1)});
  EXPECT_EQ(program_count(module), 2u);
  std::vector<std::pair<std::string, std::string>> kept;
  for (const NodeReport& node : report.nodes) {
    if (!node.integer) kept.emplace_back(node.kind, node.reason);
  }
  EXPECT_EQ(kept, (std::vector<std::pair<std::string, std::string>>{
                      {"aten::cumsum", "has no integer form"},
                      {"aten::cumsum", "has no integer form"},
                      {"aten::flatten", "input is not fake-quantized"}}));
}

// A value that a program makes, a float operator and a later program all use.
TEST(ConvertTest, ValuesThatProgramsAndFloatOperatorsShare) {
  const auto [module, report] = convert_checked(model().define(R"(x = self.a(x)
y = self.a(torch.conv2d(x, self.conv(), self.conv_bias, [1, 1], [1, 1]))
z = self.a(torch.softmax(y, 1))
u = torch.conv2d(z, self.second(), self.second_bias, [1, 1], [1, 1])
return torch.tanh(y) + self.a(torch.relu(u + y)) + torch.mean(x))"),
                                                {image(1)});
  EXPECT_EQ(program_count(module), 2u);
  EXPECT_TRUE(find(report, "aten::relu").integer);
}

TEST(ConvertTest, AModelWithoutFakeQuantizationIsUnchanged) {
  const auto [module, report] = convert_checked(
      model().define("return torch.conv2d(x, self.conv_weight, self.conv_bias)"), {image(1)});
  EXPECT_EQ(program_count(module), 0u);
  ASSERT_EQ(report.nodes.size(), 1u);
  EXPECT_EQ(report.nodes[0].reason, "input is not fake-quantized");
  EXPECT_GT(report.nodes[0].macs, 0);
  EXPECT_EQ(report.nodes[0].weight_bytes, 0);
}

TEST(ConvertTest, ParametersThatRequireGradients) {
  jit::Module source = model().define(R"(x = torch.conv2d(self.a(x), self.conv(), self.conv_bias)
return torch.conv2d(torch.tanh(x), self.second_weight, self.second_bias))");
  for (at::Tensor parameter : source.parameters()) parameter.requires_grad_(true);
  const Converted converted = convert(source, {image(1)});
  EXPECT_FALSE(run(converted.module, {image(1)}).requires_grad());
  EXPECT_TRUE(source.attr("conv_weight").toTensor().requires_grad());
}

TEST(ConvertTest, OutputsThatAreInputsConstantsOrCodes) {
  jit::Module source = model().define(R"(q = self.a(x)
return x, self.conv_bias, q, q, torch.conv2d(q, self.conv(), self.conv_bias))");
  Converted converted = convert(source, {image(1)});
  const auto actual = converted.module.forward({image(1)}).toTupleRef().elements().vec();
  const auto expected = source.forward({image(1)}).toTupleRef().elements().vec();
  ASSERT_EQ(actual.size(), 5u);
  for (size_t i = 0; i < 5; ++i)
    EXPECT_TRUE(at::equal(actual[i].toTensor(), expected[i].toTensor())) << i;
}

TEST(ConvertTest, SeveralInputs) {
  const at::Tensor x = image(1);
  const at::Tensor y = image(2);
  const auto [module, report] =
      convert_checked(model().define("return self.a(self.a(x) + self.a(y))", "x, y"), {x, y});
  EXPECT_TRUE(find(report, "aten::add").integer);
}

TEST(ConvertTest, NamesOfSubmodules) {
  Model inner;
  inner.weight("conv", {6, 3, 3, 3});
  jit::Module leaf = inner.define("return self.a(torch.conv2d(x, self.conv(), self.conv_bias))");
  jit::Module middle =
      Model().submodule("leaf", leaf).define("return self.leaf.forward(self.a(x))");
  const auto [module, report] = convert_checked(
      Model().submodule("middle", middle).define("return torch.tanh(self.middle.forward(x))"),
      {image(1)});
  EXPECT_EQ(find(report, "aten::conv2d").name, "middle.leaf");
  EXPECT_EQ(find(report, "qatx::fake_quantize").name, "middle");
  EXPECT_EQ(find(report, "aten::tanh").name, "");
}

// ---- Rules: what becomes integer, and the reason where it does not -------------------

struct RuleCase {
  const char* body;  // forward's
  const char* kind;
  const char* reason;  // "" where it becomes integer
};

void check_rules(const std::vector<RuleCase>& cases) {
  for (const RuleCase& t : cases) {
    SCOPED_TRACE(t.body);
    Model m = model();
    m.weight("transposed", {3, 4, 2, 2}).weight("grouped", {6, 1, 2, 3}).weight("line", {4, 8, 3});
    m.weight("wide", {5, 192}).weight("last", {5, 8}).buffer("row", floats({1.0f, 2.0f, 3.0f}));
    m.buffer("conv_scales_in", floats({0x1p-6f, 0x1p-5f, 0x1p-6f}))
        .buffer("three_zeros", floats({0, 0, 0}));
    m.buffer("one_scale", floats({0x1p-6f}))
        .buffer("one_zero", floats({0}))
        .buffer("far_zero", floats({-100}))
        .buffer("fine_scale", floats({0x1p-9f}));
    try {
      const bool exact = t.reason == std::string();
      const auto [module, report] = convert_checked(m.define(t.body), {image(1)}, exact);
      EXPECT_EQ(find(report, t.kind).reason, t.reason);
      EXPECT_EQ(find(report, t.kind).integer, t.reason == std::string());
    } catch (const std::exception& error) {
      ADD_FAILURE() << error.what();
    }
  }
}

TEST(ConvertRulesTest, Convolution) {
  check_rules({
      {"return torch.conv2d(self.a(x), self.conv(), self.conv_bias, [2, 3], [2, 1], [1, 2])",
       "aten::conv2d", ""},
      {"return torch.conv2d(self.a(x), self.conv(), None)", "aten::conv2d", ""},
      {"return torch.conv2d(self.a(x), self.conv(), None, [1, 1], 'same')", "aten::conv2d", ""},
      {"return torch.conv2d(self.a(x), self.conv(), None, [1, 1], 'valid')", "aten::conv2d", ""},
      {"return torch.conv2d(self.a(x), self.grouped(), None, [1, 1], 'same', [1, 2], 3)",
       "aten::conv2d", ""},
      {"return torch._convolution_mode(self.a(x), self.conv(), None, [1, 1], 'same', [1, 1], 1)",
       "aten::_convolution_mode", ""},
      {"return torch._convolution(self.a(x), self.conv(), None, [1, 1], [1, 1], [1, 1], False, [0, "
       "0], 1, False, "
       "False, False, False)",
       "aten::_convolution", ""},
      {"return torch._convolution(self.a(x), self.transposed(), None, [1, 1], [0, 0], [1, 1], "
       "True, [0, 0], 1, "
       "False, False, False, False)",
       "aten::_convolution", "weight is not fake-quantized by output channel"},
      {"w = torch.transpose(qatx.fake_quantize(torch.transpose(self.transposed_weight, 0, 1), "
       "self.one_scale, self.one_zero, -128, 127), 0, 1)\n"
       "return torch._convolution(self.a(x), w, None, [2, 2], [0, 1], [1, 1], True, [1, 0], 1, "
       "False, False, False, False)",
       "aten::_convolution", ""},
      {"return torch._convolution(self.a(x), self.transposed_weight, None, [1, 1], [0, 0], "
       "[1, 1], True, [0, 0], 3, False, False, False, False)",
       "aten::_convolution", "weight is not fake-quantized by output channel"},
      {"return torch.conv2d(x, self.conv(), self.conv_bias)", "aten::conv2d",
       "input is not fake-quantized"},
      {"return torch.conv2d(self.a(x), self.conv_weight, self.conv_bias)", "aten::conv2d",
       "weight is not fake-quantized"},
      {"return torch.conv2d(self.a(x), x.narrow(2, 0, 3).narrow(3, 0, 3), None)", "aten::conv2d",
       "weight depends on the input"},
      {"return torch.conv2d(self.a(x), self.conv(), torch.mean(x, [0, 2, 3]).repeat([2]))",
       "aten::conv2d", "bias depends on the input"},
      {"return torch.conv2d(self.a(x)[0], self.conv(), None)", "aten::conv2d",
       "input has no batch dimension"},
      {"return torch.conv2d(self.a(x), qatx.fake_quantize(self.conv_weight, self.conv_scales_in, "
       "self.three_zeros, "
       "-128, 127, 1), None)",
       "aten::conv2d", "weight scales are not by output channel"},
      {"return torch.conv2d(self.a(x), qatx.fake_quantize(self.conv_weight, self.conv_scale, "
       "self.conv_zero, "
       "-128, 127, -4), None)",
       "aten::conv2d", ""},
      {"return torch.conv2d(self.a(x), qatx.fake_quantize(self.conv_weight, self.one_scale, "
       "self.one_zero, -8, 7), None)",
       "aten::conv2d", ""},
      {"return torch.conv2d(self.a(x), qatx.fake_quantize(self.conv_weight, self.fine_scale, "
       "self.far_zero, -128, 127), None)",
       "aten::conv2d", "weight codes do not fit 8 signed bits"},
      {"return torch.conv1d(torch.flatten(self.a(x), 2).narrow(1, 0, 3).reshape([2, 8, 24]), "
       "self.line(), self.line_bias, [2], [1], [3])",
       "aten::conv1d", ""},
      {"return torch.conv1d(self.a(x)[0], self.line(), None)", "aten::conv1d", ""},
  });
}

TEST(ConvertRulesTest, Linear) {
  check_rules({
      {"return torch.linear(torch.flatten(self.a(x), 1), self.wide(), self.wide_bias)",
       "aten::linear", ""},
      {"return torch.linear(torch.flatten(self.a(x), 1), self.wide(), None)", "aten::linear", ""},
      {"return torch.linear(torch.flatten(self.a(x), 2), "
       "qatx.fake_quantize(self.wide_weight.reshape([15, 64]), self.one_scale, self.one_zero, "
       "-128, 127), None)",
       "aten::linear", ""},
      {"return torch.linear(self.a(x), self.last(), self.last_bias)", "aten::linear", ""},
      // An addition inside the layer, before its result is moved.
      {"y = self.a(torch.linear(self.a(x), self.last(), self.last_bias))\n"
       "return torch.relu(torch.linear(self.a(x), self.last(), self.last_bias) + y)",
       "aten::relu", ""},
      {"return torch.linear(torch.flatten(x, 1), self.wide(), None)", "aten::linear",
       "input is not fake-quantized"},
      {"return torch.linear(torch.flatten(self.a(x), 1), qatx.fake_quantize(self.wide_weight, "
       "self.one_scale, self.one_zero, -8, x.size(0) + 5), None)",
       "aten::linear", "quant_min or quant_max of the weight depend on the input"},
      {"return torch.linear(torch.flatten(self.a(x), 1), self.wide_weight, None)", "aten::linear",
       "weight is not fake-quantized"},
  });
}

TEST(ConvertRulesTest, AddAndActivations) {
  check_rules({
      {"return self.a(x) + self.a(x * 0.5)", "aten::add", ""},
      {"return torch.add(self.a(x), self.a(x), alpha=2)", "aten::add", "alpha is not 1"},
      {"return self.a(x) + self.a(torch.mean(x, [2, 3], True))", "aten::add", ""},
      {"y = self.a(torch.mean(x, [2, 3], True))\n"
       "return torch.conv2d(self.a(x), self.conv(), None).narrow(1, 0, 1) * 0.0 + y",
       "aten::add",
       "one input is neither fake-quantized nor an integer layer's output used only here"},
      {"y = self.a(torch.mean(x, [1], True))\n"
       "return torch.conv2d(self.a(x), self.conv(), None, [1, 1], [1, 1]) + y",
       "aten::add", "inputs differ in shape, and one is not fake-quantized"},
      {"return self.a(x) + 1", "aten::add", ""},
      {"return self.a(x) + self.row.reshape([3, 1, 1])", "aten::add", ""},
      {"return self.a(x) + self.row.reshape([3, 1, 1]).repeat([1, 1, 8]) * torch.arange(8)",
       "aten::add", "constants differ along more than one dimension"},
      {"return x + x", "aten::add", "no input is fake-quantized"},
      {"return self.a(x) + x", "aten::add",
       "one input is neither fake-quantized nor an integer layer's output used only here"},
      {"x = self.a(x)\nreturn torch.conv2d(x, self.conv(), None, [1, 1], [1, 1]).narrow(1, 0, 3) + "
       "x",
       "aten::add",
       "one input is neither fake-quantized nor an integer layer's output used only here"},
      {"y = self.a(torch.conv2d(self.a(x), self.conv(), None, [1, 1], [1, 1]))\n"
       "return y + torch.conv2d(y, self.second(), self.second_bias, [1, 1], [1, 1])",
       "aten::add", ""},
      // The sum of a layer's output and codes, then relu, then codes: one node.
      {"y = self.a(torch.conv2d(self.a(x), self.conv(), None, [1, 1], [1, 1]))\n"
       "return self.a(torch.relu(torch.conv2d(y, self.second(), self.second_bias, [1, 1], [1, 1]) "
       "+ y))",
       "aten::relu", ""},
      {"return torch.relu(torch.conv2d(self.a(x), self.conv(), None))", "aten::relu", ""},
      {"return torch.relu6(torch.conv2d(self.a(x), self.conv(), None))", "aten::relu6", ""},
      {"return torch.hardtanh(torch.conv2d(self.a(x), self.conv(), None), -0.5, 2.25)",
       "aten::hardtanh", ""},
      {"return torch.clamp(torch.conv2d(self.a(x), self.conv(), None), None, 3)", "aten::clamp",
       ""},
      {"return torch.clamp(torch.conv2d(self.a(x), self.conv(), None), -1.5, None)", "aten::clamp",
       ""},
      {"return torch.relu(self.a(x) + self.a(x * 0.5))", "aten::relu", ""},
      {"return torch.relu(torch.adaptive_avg_pool2d(self.a(x), [2, 2]))", "aten::relu", ""},
      {"return torch.relu(self.a(x))", "aten::relu", ""},
      {"return torch.relu(x)", "aten::relu", "input is no integer layer's output used only here"},
      {"y = torch.conv2d(self.a(x), self.conv(), None)\nreturn torch.relu(y) + torch.tanh(y)",
       "aten::relu", "input is no integer layer's output used only here"},
      {"return torch.relu6(torch.relu(torch.conv2d(self.a(x), self.conv(), None)))", "aten::relu6",
       ""},
      {"return torch.clamp(torch.conv2d(self.a(x), self.conv(), None), torch.mean(x), None)",
       "aten::clamp", "bounds are not constant"},
  });
}

TEST(ConvertRulesTest, ProductsAndFunctionsOfOneValue) {
  check_rules({
      {"return self.a(x) * self.a(x + 0.5)", "aten::mul", ""},
      {"return self.a(x) * self.a(torch.mean(x, [2, 3], True))", "aten::mul", ""},
      {"return self.a(x) * x", "aten::mul", "an input is not fake-quantized"},
      {"return self.a(x) * 0.25", "aten::mul", ""},
      {"return self.a(x) * self.one_scale", "aten::mul", ""},
      {"return self.a(x) * self.row.reshape([3, 1, 1])", "aten::mul", ""},
      {"return self.a(x) * self.row.reshape([3, 1, 1]).repeat([1, 1, 8]) * torch.arange(8)",
       "aten::mul", "constants differ along more than one dimension"},
      {"return torch.flatten(self.a(x)) * self.one_scale.reshape([1, 1])", "aten::mul",
       "a constant has more dimensions than the input"},
      {"return torch.sigmoid(self.a(x))", "aten::sigmoid", ""},
      {"return torch.sigmoid(x)", "aten::sigmoid", "input is not fake-quantized"},
      {"return torch.sub(self.a(x), self.a(x * 0.5))", "aten::sub", ""},
      {"return torch.sub(self.a(x), x)", "aten::sub", "an input is not fake-quantized"},
      {"return torch.sub(self.a(x), self.a(x * 0.5), alpha=2)", "aten::sub", "alpha is not 1"},
      {"return torch.exp(torch.sin(self.a(x)))", "aten::exp", ""},
      {"y = torch.sin(self.a(x))\nreturn torch.exp(y) + y", "aten::exp",
       "input is not fake-quantized"},
      {"return torch.div(self.a(x), 2.0)", "aten::div", ""},
      {"return torch.pow(self.a(x), 2)", "aten::pow", ""},
      {"return torch.hardswish(self.a(x))", "aten::hardswish", ""},
  });
}

// Requantization is a table, and none at all where nothing changes.
TEST(ConvertTest, QuantizingAgain) {
  Model m = model();
  m.buffer("fine", floats({0x1p-5f}));
  const auto [module, report] = convert_checked(m.define(R"(x = self.a(self.a(x))
return qatx.fake_quantize(x, self.fine, self.a_zero, 0, 255))"),
                                                {image(1)});
  std::vector<std::string> operators;
  const auto program = module.attr("program_0").toCustomClass<engine::Program>();
  for (const engine::Node& node : program->graph().nodes) operators.push_back(node.op);
  EXPECT_EQ(operators, (std::vector<std::string>{"quantize", "table", "dequantize"}));
}

TEST(ConvertRulesTest, Pooling) {
  check_rules({
      {"return torch.max_pool2d(self.a(x), [3, 2], [2, 1], [1, 1], [1, 2], True)",
       "aten::max_pool2d", ""},
      {"return torch.max_pool2d(self.a(x), [2, 2])", "aten::max_pool2d", ""},
      {"return torch.max_pool2d(x, [2, 2])", "aten::max_pool2d", "input is not fake-quantized"},
      {"return torch.max_pool2d(self.a(x)[0], [2, 2])", "aten::max_pool2d",
       "input has not 4 dimensions"},
      {"return torch.max_pool1d(self.a(x)[0], [3], [2], [1])", "aten::max_pool1d", ""},
      {"y = self.a(x)[0]\nreturn torch.max_pool1d(y, [y.size(2)])", "aten::max_pool1d", ""},
      {"return torch.avg_pool1d(self.a(x)[0], [2])", "aten::avg_pool1d", ""},
      {"return torch.avg_pool1d(torch.tanh(x[0]), [2])", "aten::avg_pool1d",
       "input is not fake-quantized"},
      {"return torch.adaptive_avg_pool1d(self.a(x)[0], [4])", "aten::adaptive_avg_pool1d", ""},
      {"return torch.amax(self.a(x), [2, 3])", "aten::amax", ""},
      {"return torch.amax(self.a(x)[0], [-1], True)", "aten::amax", ""},
      {"return torch.amax(self.a(x), [1])", "aten::amax", ""},
      {"return torch.max(self.a(x))", "aten::max", "is not along dimensions"},
      {"return torch.avg_pool2d(self.a(x), [2, 4])", "aten::avg_pool2d", ""},
      {"return torch.avg_pool2d(self.a(x), [4, 4], [2, 2], [2, 2], True, True, None)",
       "aten::avg_pool2d", ""},
      {"return torch.avg_pool2d(self.a(x), [3, 3], [2, 2], [0, 0], False, True, 8)",
       "aten::avg_pool2d", ""},
      {"return torch.adaptive_avg_pool2d(self.a(x), [4, 2])", "aten::adaptive_avg_pool2d", ""},
      {"return torch.mean(self.a(x), [2, 3])", "aten::mean", ""},
      {"return torch.mean(self.a(x), [-1, -2], True)", "aten::mean", ""},
      {"return torch.mean(self.a(x), [2])", "aten::mean", ""},
      {"return torch.mean(self.a(x), [0, 3], True)", "aten::mean", ""},
      {"return torch.mean(self.a(x).narrow(1, 0, 1))", "aten::mean", ""},
      {"return torch.mean(torch.flatten(self.a(x), 2), [2])", "aten::mean", ""},
      {"return torch.mean(x, [1])", "aten::mean", "input is not fake-quantized"},
  });
}

TEST(ConvertRulesTest, ShapesAndIdentities) {
  check_rules({
      {"return torch.flatten(self.a(x), 1)", "aten::flatten", ""},
      {"return torch.flatten(self.a(x))", "aten::flatten", ""},
      {"return torch.flatten(self.a(x), -2)", "aten::flatten", ""},
      {"return torch.flatten(self.a(x), 1, 2)", "aten::flatten", ""},
      {"return torch.flatten(self.a(x), 3)", "aten::flatten", ""},
      {"return torch.reshape(self.a(x), [2, -1])", "aten::reshape", ""},
      {"return torch.reshape(self.a(x), [2, 3, 16, 4])", "aten::reshape", ""},
      {"x = self.a(x)\nreturn x.view([x.size(0), -1])", "aten::view", ""},
      {"x = self.a(x)\nreturn x.reshape([-1, x.size(1) * 64])", "aten::reshape", ""},
      {"x = self.a(x)\nreturn x.reshape([x.size(0), 3, x.size(2) * x.size(3)])", "aten::reshape",
       ""},
      {"y = self.a(x)\nreturn y.reshape([x.size(3), x.size(0) * 3, -1])", "aten::reshape",
       "several sizes are neither constant nor those of its input"},
      // Sums of numbers, and of lists, are no sums of tensors.
      {"x = self.a(x)\nreturn x.reshape([x.size(0) + 0] + [-1])", "aten::reshape",
       "its sizes are not known"},
      {"return torch.reshape(x, [2, -1])", "aten::reshape", "input is not fake-quantized"},
      {"return torch.conv2d(torch.dropout(self.a(x), 0.5, False), self.conv(), None)",
       "aten::dropout", ""},
      {"return torch.conv2d(self.a(x).contiguous(), self.conv(), None)", "aten::contiguous", ""},
      {"return torch.dropout(x, 0.5, False)", "aten::dropout", "input is not fake-quantized"},
      {"return torch.tanh(self.a(self.a(x) ))", "qatx::fake_quantize", ""},
      {"return qatx.fake_quantize(x, self.conv_scales_in, self.three_zeros, 0, 255, 1)",
       "qatx::fake_quantize", "activations take one scale per tensor"},
      {"return qatx.fake_quantize(x, torch.mean(x) * 0.0 + 0.25, self.a_zero, 0, 255)",
       "qatx::fake_quantize", "scale or zero_point depend on the input"},
      {"return qatx.fake_quantize(x, self.a_scale, self.a_zero, 0, x.size(0) * 100)",
       "qatx::fake_quantize", "quant_min or quant_max depend on the input"},
  });
}

TEST(ConvertRulesTest, Moves) {
  check_rules({
      {"return torch.permute(self.a(x), [0, 2, 3, 1])", "aten::permute", ""},
      {"return torch.permute(x, [0, 2, 3, 1])", "aten::permute", "input is not fake-quantized"},
      {"return torch.transpose(self.a(x), -1, 1)", "aten::transpose", ""},
      {"return torch.unsqueeze(self.a(x), -1)", "aten::unsqueeze", ""},
      {"return torch.squeeze(self.a(torch.mean(x, [2], True)), 2)", "aten::squeeze", ""},
      {"return torch.squeeze(self.a(x))", "aten::squeeze", "what it removes depends on the input"},
      {"return torch.pixel_unshuffle(self.a(x), 2)", "aten::pixel_unshuffle", ""},
      {"return torch.pixel_shuffle(torch.reshape(self.a(x), [1, 12, 8, 4]), 2)",
       "aten::pixel_shuffle", ""},
      {"return torch.channel_shuffle(self.a(x), 3)", "aten::channel_shuffle", ""},
      {"return self.a(x)[:, 1:, ::2, -3:]", "aten::slice", ""},
      {"return self.a(x)[:, -1]", "aten::select", ""},
      {"return self.a(x).narrow(1, -2, 2)", "aten::narrow", ""},
      {"y = self.a(x)\nreturn y.narrow(3, 0, y.size(3) // 2)", "aten::narrow",
       "what it takes depends on the input"},
      {"a, b = torch.chunk(self.a(x), 2, 2)\nreturn a * b", "aten::mul", ""},
      {"a, b, c = torch.split(self.a(x), 1, 1)\nreturn a * b", "aten::mul", ""},
      {"return torch.constant_pad_nd(self.a(x), [1, 0, 2, 1], 0.0)", "aten::constant_pad_nd", ""},
      {"return torch.constant_pad_nd(self.a(x), [1, 0, 2, 1], 1.0)", "aten::constant_pad_nd",
       "pads with something else than 0"},
      {"return torch.cat([self.a(x), self.a(x + 1)], 1)", "aten::cat", ""},
      {"return torch.cat([self.a(x), x], 1)", "aten::cat", "an input is not fake-quantized"},
      // Other parameters: a table for each.
      {"y = qatx.fake_quantize(x, self.one_scale, self.a_zero, 0, 255)\n"
       "return self.a(torch.relu(torch.cat([self.a(x), y, y], 3)))",
       "aten::cat", ""},
  });
}

TEST(ConvertRulesTest, DropoutInTrainingStays) {
  const auto report =
      convert(model().define("return torch.dropout(self.a(x), 0.5, True)"), {image(1)}).report;
  EXPECT_EQ(find(report, "aten::dropout").reason, "is in training mode");
}

TEST(ConvertRulesTest, TooManyProducts) {
  Model m;
  m.weight("fc", {2, 65537});
  const auto report =
      convert(m.define("return torch.linear(self.a(x), self.fc(), None)"), {image(1, {1, 65537})})
          .report;
  EXPECT_EQ(find(report, "aten::linear").reason,
            "an output sums more than 65536 products, which may not fit 32 bits");
}

// ---- Writes in place, control flow ---------------------------------------------------

TEST(ConvertTest, RemovesWritesInPlace) {
  const auto [module, report] =
      convert_checked(model().define(R"(x = torch.conv2d(self.a(x), self.conv(), self.conv_bias)
x = self.a(torch.relu_(x))
return torch.conv2d(x, self.second(), self.second_bias))"),
                      {image(1)});
  EXPECT_TRUE(find(report, "aten::relu").integer);
  EXPECT_EQ(program_count(module), 1u);
}

TEST(ConvertTest, WritesInPlaceThatCannotBeRemoved) {
  EXPECT_ERROR(c10::ValueError, "the model writes in place with aten::add_",
               convert(model().define("x.add_(1.0)\nreturn self.a(x)"), {image(1)}));
  EXPECT_ERROR(
      c10::ValueError, "the model writes in place with aten::mul_",
      convert(
          model().define(
              "y = torch.tanh(x)\nif bool(torch.mean(x) > 0):\n    x.mul_(2.0)\nreturn self.a(y)"),
          {image(1)}));
}

TEST(ConvertTest, ControlFlowStaysFloat) {
  jit::Module source = model().define(R"(q = self.a(x)
y = torch.conv2d(q, self.conv(), self.conv_bias)
if bool(torch.mean(x) > 0.0):
    z = torch.tanh(y)
else:
    z = torch.conv2d(q, self.conv(), None, [1, 1], [1, 1]).narrow(2, 1, 6).narrow(3, 1, 6) * 0.25
return torch.conv2d(self.a(z), self.second(), self.second_bias) + torch.max(z))");
  const at::Tensor positive = image(1);
  const at::Tensor negative = image(1) - 20.0f;
  ASSERT_GT(positive.mean().item<float>(), 0.0f);
  ASSERT_LT(negative.mean().item<float>(), 0.0f);
  Converted converted = convert(source, {positive});
  EXPECT_TRUE(at::equal(run(converted.module, {positive}), run(source, {positive})));
  EXPECT_TRUE(at::equal(run(converted.module, {negative}), run(source, {negative})));
  EXPECT_TRUE(find(converted.report, "aten::conv2d").integer);
}

// Behind control flow sizes are not known: what depends on them must stay float.
TEST(ConvertTest, UnknownSizes) {
  Model m;
  m.weight("fc", {5, 8});
  const auto [module, report] = convert_checked(m.define(R"(if bool(torch.mean(x) > 0.0):
    x = torch.tanh(x)
return torch.linear(self.a(x), self.fc(), self.fc_bias))"),
                                                {image(1)});
  EXPECT_FALSE(find(report, "aten::linear").integer);
}

// ---- Bad input -----------------------------------------------------------------------

TEST(ConvertTest, WrongExampleInputs) {
  const jit::Module source = model().define(kNetwork);
  EXPECT_ERROR(c10::ValueError, "the model takes 1 inputs, got 0 example inputs",
               convert(source, {}));
  EXPECT_ERROR(c10::ValueError, "the model takes 1 inputs, got 2 example inputs",
               convert(source, {image(1), image(1)}));
  EXPECT_ERROR(c10::Error, "channels", convert(source, {image(1, {1, 4, 8, 8})}));
  EXPECT_ERROR(c10::TypeError, "scale must be float64 where x is, got Float",
               convert(source, {image(1).to(at::kDouble)}));
}

TEST(ConvertTest, AConvertedModel) {
  const Converted converted = convert(model().define(kNetwork), {image(1)});
  EXPECT_ERROR(c10::ValueError, "the model is converted already",
               convert(converted.module, {image(1)}));
}

TEST(ConvertTest, ValuesThatHaveNoCodes) {
  const auto with = [](const std::string& name, float bad) {
    Model m = model();
    jit::Module source = m.define(kNetwork);
    at::Tensor t = source.attr(name).toTensor();
    t.view(-1)[t.numel() - 1] = bad;
    return source;
  };
  EXPECT_ERROR(c10::ValueError, "is NaN", convert(with("second_weight", kNan), {image(1)}));
  for (const float bad : {kInf, -kInf}) {
    EXPECT_ERROR(c10::ValueError, "weight", convert(with("second_weight", bad), {image(1)}));
  }
  for (const float bad : {kNan, kInf}) {
    EXPECT_ERROR(c10::ValueError, "has NaN or infinite elements",
                 convert(with("fc_bias", bad), {image(1)}));
  }
  for (const float bad : {kNan, 0.0f, -1.0f}) {
    EXPECT_ERROR(c10::ValueError, "scale[0] must be positive",
                 convert(with("a_scale", bad), {image(1)}));
    EXPECT_ERROR(c10::ValueError, "scale[4] must be positive",
                 convert(with("fc_scale", bad), {image(1)}));
  }
  EXPECT_ERROR(c10::ValueError, "zero_point[0] must be a number",
               convert(with("a_zero", kNan), {image(1)}));
}

// ---- Saving --------------------------------------------------------------------------

TEST(ConvertTest, SavedAndLoaded) {
  jit::Module source = model().define(R"(x = torch.conv2d(self.a(x), self.conv(), self.conv_bias)
x = self.a(torch.sigmoid(x))
return torch.conv2d(x, self.second(), self.second_bias))");
  Converted converted = convert(source, {image(1)});
  const std::string archive = save(converted.module);
  EXPECT_EQ(save(converted.module), archive);
  std::istringstream in(archive);
  jit::Module loaded = jit::load(in);
  EXPECT_TRUE(at::equal(run(loaded, {image(1)}), run(converted.module, {image(1)})));
  EXPECT_TRUE(
      at::equal(run(loaded, {image(2, {1, 3, 9, 7})}), run(source, {image(2, {1, 3, 9, 7})})));
  const std::string again = save(loaded);
  EXPECT_EQ(again.size(), archive.size());
  EXPECT_TRUE(again == archive);
  EXPECT_FALSE(loaded.is_training());
}

// LibTorch loads an archive whose weights were altered without a word.
TEST(ConvertTest, AnAlteredWeightIsAnError) {
  const Converted converted = convert(model().define(kNetwork), {image(1)});
  const auto program = converted.module.attr("program_0").toCustomClass<engine::Program>();
  size_t weights = 0;
  for (const engine::Node& node : program->graph().nodes) {
    if (!node.tensors.contains("weight")) continue;
    ++weights;
    const at::Tensor& weight = node.tensors.at("weight");
    std::string archive = save(converted.module);
    const size_t begin = archive.find(
        std::string(static_cast<const char*>(weight.const_data_ptr()), weight.nbytes()));
    ASSERT_NE(begin, std::string::npos);
    archive[begin + weight.nbytes() - 1] ^= 1;
    std::istringstream in(archive);
    try {
      jit::load(in);
      ADD_FAILURE() << "loaded";
    } catch (const std::exception& error) {
      EXPECT_NE(std::string(error.what()).find("has been altered or damaged"), std::string::npos)
          << error.what();
    }
  }
  EXPECT_EQ(weights, 4u);
}

}  // namespace
}  // namespace qatx
