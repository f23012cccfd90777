// From a float model to integers: prepare, calibrate, convert, verify, in C++ alone.

#include <torch/data.h>
#include <torch/optim/schedulers/step_lr.h>
#include <torch/optim/sgd.h>
#include <torch/script.h>
#include <torch/serialize.h>

#include <barrier>
#include <sstream>
#include <thread>

#include "../tensor_testing.h"
#include "network.h"
#include "qatx/model/calibrate.h"
#include "qatx/model/convert.h"
#include "qatx/model/prepare.h"
#include "qatx/model/report.h"
#include "qatx/model/trace.h"
#include "qatx/model/training.h"
#include "qatx/model/verify.h"
#include "qatx/nn/nn.h"

namespace qatx {
namespace {

using testing::Block;
using testing::Network;
using testing::Random;
using testing::random_floats;
using testing::same_bits;

at::Tensor images(unsigned seed, int64_t count = 128) {
  Random random(seed);
  // Smooth along both sides, so that they do not look like noise.
  return random_floats(random, {count, 3, 8, 8}, -1.0f, 1.0f).cumsum(2).cumsum(3).div(4.0);
}

Network network() {
  torch::manual_seed(3);
  Network net;
  net->forward(images(1));  // moves the statistics of batch normalization
  return net;
}

Network calibrated() {
  Network net = network();
  prepare(net, {images(2, 1)});
  calibrate(net, images(3));
  return net;
}

// What is warned of is kept, and not printed.
class ModelTest : public ::testing::Test, public c10::WarningHandler {
 public:
  void process(const c10::Warning& warning) override { warnings.push_back(warning.msg()); }

 protected:
  std::vector<std::string> warnings;

 private:
  c10::WarningUtils::WarningHandlerGuard guard_{this};
};
class PrepareTest : public ModelTest {};
class CalibrateTest : public ModelTest {};
class ConvertModelTest : public ModelTest {};
class TraceTest : public ModelTest {};
class TrainingTest : public ModelTest {};

std::vector<std::string> quantized_values(torch::nn::Module& model) {
  std::vector<std::string> found;
  for (const auto& item : model.named_modules("", false)) {
    const auto* f = item.value()->as<nn::FakeQuantizeImpl>();
    if (f && f->options.role() == nn::Role::kActivation) found.push_back(item.key());
  }
  return found;
}

TEST_F(PrepareTest, PutsLayersInAndQuantizesWhatIsRead) {
  Network net = network();
  const at::Tensor x = images(2);
  net->eval();
  const at::Tensor expected = net->forward(x).detach();
  net->train();
  const auto parameters = net->parameters();
  prepare(net, {x});
  EXPECT_TRUE(net->is_training());
  EXPECT_TRUE(net->blocks->at<testing::BlockImpl>(0).body[0]->as<nn::ConvBn2d>());
  EXPECT_TRUE(net->stem[0]->as<nn::Conv2d>());
  EXPECT_TRUE(net->stem[1]->as<torch::nn::Identity>());
  // As Python's prepare does: the later operand of each sum, that of the shortcut, is left to the
  // sum; the model's output stays in float.
  EXPECT_EQ(quantized_values(*net),
            (std::vector<std::string>{
                "stub.output_fake_quantize", "stem.0.output_fake_quantize",
                "blocks.0.body.0.output_fake_quantize", "blocks.0.body.3.output_fake_quantize",
                "blocks.0.add.output_fake_quantize", "blocks.1.body.0.output_fake_quantize",
                "blocks.1.body.3.output_fake_quantize", "blocks.1.add.output_fake_quantize",
                "pooled.output_fake_quantize"}));
  // The same parameters, and in the state kCalibrate the same function.
  for (const at::Tensor& parameter : parameters) {
    const auto now = net->parameters();
    EXPECT_TRUE(std::any_of(now.begin(), now.end(),
                            [&](const at::Tensor& t) { return t.is_same(parameter); }));
  }
  for (const auto& module : net->modules()) {
    if (auto* f = module->as<nn::FakeQuantizeImpl>()) f->begin_calibration();
  }
  net->eval();
  EXPECT_TRUE(at::allclose(net->forward(x), expected, 1e-4, 1e-4));
}

TEST_F(PrepareTest, KeepsLayersInFloatWhereAsked) {
  Network net = network();
  prepare(net, {images(2)}, {}, PrepareOptions().keep_float({"blocks.0", "head"}));
  EXPECT_TRUE(net->blocks->at<testing::BlockImpl>(0).body[0]->as<torch::nn::Conv2d>());
  EXPECT_TRUE(net->head[2]->as<torch::nn::Linear>());
  Network other = network();
  EXPECT_ERROR(c10::ValueError, "keep_float has no module at 'tail'",
               prepare(other, {images(2)}, {}, PrepareOptions().keep_float({"tail"})));
}

// Applies `change` to a network whose preparation must then fail, and leave it as it was.
template <class Impl>
void expect_refused(std::shared_ptr<Impl> model, const std::string& message) {
  std::ostringstream before;
  before << *model;
  const at::Tensor x = images(2);
  EXPECT_ERROR(c10::ValueError, message, prepare(model, {x}));
  std::ostringstream after;
  after << *model;
  EXPECT_EQ(after.str(), before.str());
}

struct Member : torch::nn::Module {
  Member() : fc(register_module("fc", torch::nn::Linear(192, 5))) {}
  at::Tensor forward(const at::Tensor& x) { return fc->forward(x.flatten(1)); }
  torch::nn::Linear fc;
};

// conv, then what `rest` does, then linear.
struct Middle : torch::nn::Module {
  using Rest = std::function<at::Tensor(const at::Tensor&)>;
  Middle(Rest rest_, bool with_stub)
      : rest(std::move(rest_)),
        conv(torch::nn::Conv2d(torch::nn::Conv2dOptions(3, 4, 3).padding(1))),
        fc(torch::nn::Flatten(), torch::nn::Linear(256, 5)) {
    if (with_stub) {
      stub = nn::QuantStub(nn::QuantStubOptions().quantize_output(false));
      register_module("stub", stub);
    }
    register_module("conv", conv);
    register_module("fc", fc);
  }
  at::Tensor forward(const at::Tensor& x) {
    return fc->forward(rest(conv->forward(stub ? stub->forward(x) : x)));
  }
  Rest rest;
  nn::QuantStub stub{nullptr};
  torch::nn::Sequential conv;
  torch::nn::Sequential fc;
};

TEST_F(PrepareTest, SaysWhatToWriteWhereItCannotSwap) {
  expect_refused(std::make_shared<Member>(),
                 "fc is a torch::nn::Linear that is called by its type, so it cannot be swapped. "
                 "Put it into a torch::nn::Sequential");
  expect_refused(std::make_shared<Middle>([](const auto& x) { return x; }, false),
                 "conv.0 reads an input of the model, which nothing quantizes. Pass it through a "
                 "qatx::nn::QuantStub");
  expect_refused(std::make_shared<Middle>([](const auto& x) { return at::softmax(x, 1); }, true),
                 "fc.1 reads what aten::softmax makes, which nothing quantizes");
  expect_refused(torch::nn::Linear(8, 3).ptr(), "the model is a single torch::nn::Linear");
  expect_refused(torch::nn::Sequential(torch::nn::ReLU()).ptr(), "nothing to quantize");
  expect_refused(calibrated().ptr(), "the model is prepared already: stub.output_fake_quantize");
  Network net = network();
  EXPECT_ERROR(c10::ValueError, "QConfig: weight.axis must be 0 or none, got 1",
               prepare(net, {images(2)}, QConfig().weight(QuantSpec(8, true, true, 1))));
}

TEST_F(PrepareTest, OverridesReachLayersAndWhatTheyRead) {
  const auto bits = [](int64_t weight, int64_t activation) {
    return QConfig()
        .weight(QuantSpec(weight, true, true, 0))
        .activation(QuantSpec(activation, false, false));
  };
  Network net = network();
  const auto options = PrepareOptions().overrides(
      {{"blocks.0", bits(4, 4)}, {"blocks.0.shortcut.0", bits(2, 6)}, {"head", bits(3, 5)}});
  prepare(net, {images(2)}, {}, options);
  const auto found = [&](const std::string& path) {
    return net->named_modules()[path]->as<nn::FakeQuantizeImpl>()->options.spec().bits();
  };
  EXPECT_EQ(found("stem.0.weight_fake_quantize"), 8);
  EXPECT_EQ(found("blocks.0.body.0.weight_fake_quantize"), 4);
  EXPECT_EQ(found("blocks.0.shortcut.0.weight_fake_quantize"), 2);
  EXPECT_EQ(found("head.2.weight_fake_quantize"), 3);
  // What two layers read is quantized for the one with the most bits.
  EXPECT_EQ(found("stem.0.output_fake_quantize"), 6);
  EXPECT_EQ(found("blocks.0.body.0.output_fake_quantize"), 4);
  EXPECT_EQ(found("pooled.output_fake_quantize"), 5);
  EXPECT_EQ(found("blocks.0.add.output_fake_quantize"), 8);
  // A copy is made anew, with the same.
  const auto copy = std::dynamic_pointer_cast<nn::ConvBn2dImpl>(
      net->blocks->at<testing::BlockImpl>(0).body[0]->clone());
  EXPECT_EQ(copy->weight_fake_quantize->options.spec().bits(), 4);
  EXPECT_EQ(copy->output_fake_quantize->options.spec().bits(), 4);

  Network other = network();
  std::ostringstream before;
  before << other;
  EXPECT_ERROR(c10::ValueError, "overrides has no convolution or linear layer at ['tail', 'x.y']",
               prepare(other, {images(2)}, {},
                       PrepareOptions().overrides({{"tail", {}}, {"x.y", {}}, {"head", {}}})));
  EXPECT_ERROR(c10::ValueError, "QConfig: weight.axis must be 0 or none, got 1",
               prepare(other, {images(2)}, {},
                       PrepareOptions().overrides(
                           {{"head", QConfig().weight(QuantSpec(8, true, true, 1))}})));
  std::ostringstream after;
  after << other;
  EXPECT_EQ(after.str(), before.str());
}

// As SaysWhatToWriteWhereItCannotSwap's error says.
struct Written : torch::nn::Module {
  Written() : fc(nn::LinearOptions(192, 5).quantize_output(false)) {
    register_module("stub", stub);
    register_module("fc", fc);
  }
  at::Tensor forward(const at::Tensor& x) { return fc->forward(stub->forward(x).flatten(1)); }
  nn::QuantStub stub{nn::QuantStubOptions().quantize_output(false)};
  nn::Linear fc;
};

TEST_F(PrepareTest, TakesMembersThatAreWrittenAsItsLayers) {
  const auto net = std::make_shared<Written>();
  prepare(net, {images(2)});
  EXPECT_EQ(quantized_values(*net), (std::vector<std::string>{"stub.output_fake_quantize"}));
  calibrate(net, images(3));
  EXPECT_EQ(integer_share_of_macs(convert(net, {images(2)}).report), 1.0);
}

TEST_F(PrepareTest, SeesThroughWhatKeepsValues) {
  auto net = std::make_shared<Middle>(
      [](const at::Tensor& x) { return at::max_pool2d(x, 1).permute({0, 2, 3, 1}).contiguous(); },
      true);
  prepare(net, {images(2)});
  EXPECT_EQ(quantized_values(*net),
            (std::vector<std::string>{"stub.output_fake_quantize", "conv.0.output_fake_quantize"}));
}

TEST_F(CalibrateTest, TakesTensorsRangesAndLoaders) {
  const at::Tensor x = images(4, 96);
  Network net = network();
  prepare(net, {x});
  const CalibrationReport report = calibrate(net, x, CalibrationOptions().method("mse"));
  EXPECT_EQ(report.samples, 96);
  const auto scales = [&] {
    std::vector<at::Tensor> all;
    for (const auto& item : net->named_parameters()) {
      if (item.key().ends_with(".scale")) all.push_back(item.value().detach().flatten().clone());
    }
    return at::cat(all);
  };
  const at::Tensor expected = scales();
  std::vector<at::Tensor> batches = x.split(10);
  calibrate(net, batches, CalibrationOptions().method("mse"));
  EXPECT_TRUE(same_bits(scales(), expected));
  auto loader = torch::data::make_data_loader<torch::data::samplers::SequentialSampler>(
      torch::data::datasets::TensorDataset(x).map(
          torch::data::transforms::Stack<torch::data::TensorExample>()),
      32);
  calibrate(net, *loader, CalibrationOptions().method("mse"));
  EXPECT_TRUE(same_bits(scales(), expected));
  EXPECT_EQ(calibrate(net, batches, CalibrationOptions().num_samples(15)).samples, 20);
  EXPECT_TRUE(net->is_training());
}

TEST_F(CalibrateTest, FailsWithoutTouchingTheModel) {
  Network net = calibrated();
  std::ostringstream before;
  torch::save(net, before);
  EXPECT_ERROR(c10::ValueError, "data is empty; give at least one batch",
               calibrate(net, std::vector<at::Tensor>{}));
  EXPECT_ERROR(c10::ValueError, "no finite value",
               calibrate(net, at::full({2, 3, 8, 8}, std::nan(""))));
  EXPECT_ERROR(c10::ValueError, "method must be one of min_max",
               calibrate(net, images(1), CalibrationOptions().method("best guess")));
  EXPECT_ERROR(c10::ValueError, "num_samples must be at least 1, got 0",
               calibrate(net, images(1), CalibrationOptions().num_samples(0)));
  EXPECT_ERROR(c10::Error, "channels", calibrate(net, at::ones({2, 4, 8, 8})));
  std::ostringstream after;
  torch::save(net, after);
  EXPECT_EQ(after.str(), before.str());
  Network plain;
  EXPECT_ERROR(c10::ValueError, "the model has nothing to calibrate", calibrate(plain, images(1)));
}

TEST_F(CalibrateTest, WarnsOfFewStrangeAndMovingData) {
  Network net = network();
  prepare(net, {images(2)});
  Random random(5);
  at::Tensor noise = random_floats(random, {40, 3, 8, 8}, -1.0f, 1.0f);
  const std::vector<at::Tensor> batches{noise, noise, noise, noise.mul(8.0)};
  const CalibrationReport report = calibrate(net, batches);
  ASSERT_EQ(warnings.size(), report.warnings.size());
  EXPECT_EQ(warnings[0], "qatx.calibrate: " + report.warnings[0]);
  std::ostringstream text;
  text << report;
  for (const char* part :
       {"the images look like random noise", "80 of 160 samples are duplicates of others",
        "still move at the end", "Calibrated with 160 samples", "stub.output_fake_quantize"}) {
    EXPECT_NE(text.str().find(part), std::string::npos) << part << " is not in\n" << text.str();
  }
  EXPECT_NE(calibrate(net, images(6, 20)).warnings.at(0).find("20 samples are few"),
            std::string::npos);
}

// Ranks that are threads of one process: each waits for all others, as a process group does.
class Ranks {
 public:
  explicit Ranks(size_t count) : tensors_(count), all_have_given_(count), all_have_taken_(count) {}

  AllGather all_gather(size_t rank) {
    return [this, rank](const at::Tensor& own) {
      tensors_[rank] = own;
      all_have_given_.arrive_and_wait();
      std::vector<at::Tensor> all = tensors_;
      all_have_taken_.arrive_and_wait();
      return all;
    };
  }

 private:
  std::vector<at::Tensor> tensors_;
  std::barrier<> all_have_given_;
  std::barrier<> all_have_taken_;
};

// On threads of a test, whose warnings are not looked at.
class NoWarnings : public c10::WarningHandler {
 public:
  void process(const c10::Warning&) override {}

 private:
  c10::WarningUtils::WarningHandlerGuard guard_{this};
};

// What calibrate() of two ranks did with data[rank] in each: the reports, or what was thrown.
struct OfRanks {
  std::vector<Network> nets;
  std::vector<CalibrationReport> reports = std::vector<CalibrationReport>(2);
  std::vector<std::string> errors = std::vector<std::string>(2);
};

OfRanks calibrate_ranks(const std::vector<std::vector<at::Tensor>>& data,
                        const std::string& method) {
  OfRanks result;
  for (size_t rank = 0; rank < 2; ++rank) {
    result.nets.push_back(network());
    prepare(result.nets.back(), {images(2, 1)});
  }
  Ranks ranks(2);
  std::vector<std::thread> threads;
  for (size_t rank = 0; rank < 2; ++rank) {
    threads.emplace_back([&, rank] {
      const NoWarnings no_warnings;
      const auto options = CalibrationOptions().method(method).all_gather(ranks.all_gather(rank));
      try {
        result.reports[rank] = calibrate(result.nets[rank], data[rank], options);
      } catch (const c10::Error& error) {
        result.errors[rank] = error.what_without_backtrace();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  return result;
}

std::string saved(const Network& net) {
  std::ostringstream file;
  torch::save(net, file);
  return file.str();
}

TEST_F(CalibrateTest, RanksAgreeWithOneProcessThatSawEverything) {
  std::vector<at::Tensor> batches;
  for (unsigned i = 0; i < 4; ++i) batches.push_back(images(20 + i, 30).mul(i + 1.0));
  for (const char* method : {"min_max", "moving_average", "kl"}) {
    Network alone = network();
    prepare(alone, {images(2, 1)});
    const CalibrationReport expected =
        calibrate(alone, batches, CalibrationOptions().method(method));
    const OfRanks got =
        calibrate_ranks({{batches[0], batches[3]}, {batches[1], batches[2]}}, method);
    for (size_t rank = 0; rank < 2; ++rank) {
      ASSERT_EQ(got.errors[rank], "");
      EXPECT_EQ(saved(got.nets[rank]), saved(alone)) << method;
      EXPECT_EQ(got.reports[rank].samples, 120);
      ASSERT_EQ(got.reports[rank].rows.size(), expected.rows.size());
      for (size_t i = 0; i < expected.rows.size(); ++i) {
        EXPECT_EQ(got.reports[rank].rows[i].count, expected.rows[i].count);
      }
    }
  }
}

TEST_F(CalibrateTest, NoRankWaitsForOneThatFails) {
  const OfRanks got = calibrate_ranks({{images(1)}, {}}, "min_max");
  EXPECT_EQ(got.errors[0], "qatx.calibrate: 1 other ranks have failed");
  EXPECT_NE(got.errors[1].find("data is empty"), std::string::npos) << got.errors[1];
  Network untouched = network();
  prepare(untouched, {images(2, 1)});
  for (const Network& net : got.nets) EXPECT_EQ(saved(net), saved(untouched));
}

TEST_F(ConvertModelTest, GivesAllIntegersThatVerifyAndReload) {
  Network net = calibrated();
  const at::Tensor x = images(7);
  const auto [converted, report] = convert(net, {x});
  for (const NodeReport& node : report.nodes) EXPECT_TRUE(node.integer) << node.kind << node.reason;
  EXPECT_EQ(integer_share_of_macs(report), 1.0);
  std::ostringstream table;
  table << report;
  EXPECT_NE(table.str().find("blocks.1.body.3"), std::string::npos);
  EXPECT_NE(table.str().find("100.0% of "), std::string::npos);

  const Verification verification = verify(net, converted, x);
  EXPECT_TRUE(verification.ok()) << verification;
  EXPECT_EQ(verification.rows.size(), quantized_values(*net).size());
  for (const VerificationRow& row : verification.rows) EXPECT_GT(row.elements, 0) << row.name;

  net->eval();
  const at::NoGradGuard no_grad;
  torch::jit::Module module = converted;
  const at::Tensor expected = net->forward(x);
  EXPECT_TRUE(at::allclose(module.forward({x}).toTensor(), expected, 0.05, 0.05));
  std::stringstream file;
  module.save(file);
  torch::jit::Module loaded = torch::jit::load(file);
  EXPECT_TRUE(same_bits(loaded.forward({x.slice(0, 0, 3)}).toTensor(),
                        module.forward({x.slice(0, 0, 3)}).toTensor()));
}

TEST_F(ConvertModelTest, OneLoadedModuleInManyThreadsWhileAnotherCalibrates) {
  constexpr int64_t kMost = 40;  // sizes of batches: more than plans are kept
  std::stringstream file;
  convert(calibrated(), {images(7)}).module.save(file);
  torch::jit::Module loaded = torch::jit::load(file);
  const at::Tensor x = images(13, kMost);
  const at::Tensor expected = loaded.forward({x}).toTensor();
  Network another = network();
  prepare(another, {x});
  std::vector<std::string> failures(3);
  std::vector<std::thread> threads;
  for (size_t t = 0; t < failures.size(); ++t) {
    threads.emplace_back([&, t] {
      const at::NoGradGuard no_grad;
      for (int64_t i = 0; i < kMost; ++i) {
        const int64_t n = (7 * i + 13 * static_cast<int64_t>(t)) % kMost + 1;
        const at::Tensor y = loaded.forward({x.narrow(0, 0, n)}).toTensor();
        const auto same = same_bits(y, expected.narrow(0, 0, n));
        if (!same) failures[t] = same.message();
      }
    });
  }
  calibrate(another, images(3));
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(failures, std::vector<std::string>(3));
  EXPECT_TRUE(same_bits(another->stub->output_fake_quantize->scale.detach(),
                        calibrated()->stub->output_fake_quantize->scale.detach()));
}

// Two branches put together, gated by a function of themselves.
struct Branches : torch::nn::Module {
  Branches()
      : a(torch::nn::Conv2d(torch::nn::Conv2dOptions(3, 4, 1)), torch::nn::ReLU()),
        b(torch::nn::Conv2d(torch::nn::Conv2dOptions(3, 4, 3).padding(1))),
        head(torch::nn::Conv2d(torch::nn::Conv2dOptions(8, 2, 1))) {
    register_module("stub", stub);
    register_module("gate", gate);
    register_module("cat", cat);
    register_module("mul", mul);
    register_module("a", a);
    register_module("b", b);
    register_module("head", head);
  }
  at::Tensor forward(const at::Tensor& x) {
    const at::Tensor in = stub->forward(x);
    const at::Tensor left = a->forward(in);
    const at::Tensor both = cat->forward({left, b->forward(in)});
    return head->forward(mul->forward(both, gate->forward(at::sigmoid(both))));
  }
  nn::QuantStub stub{nn::QuantStubOptions().quantize_output(false)};
  nn::QuantStub gate{nn::QuantStubOptions().quantize_output(false)};
  nn::Cat cat{nn::CatOptions().quantize_output(false)};
  nn::Mul mul{nn::MulOptions().quantize_output(false)};
  torch::nn::Sequential a;
  torch::nn::Sequential b;
  torch::nn::Sequential head;
};

TEST_F(ConvertModelTest, JoinsAndProductsRunInIntegers) {
  torch::manual_seed(4);
  const auto net = std::make_shared<Branches>();
  const at::Tensor x = images(11);
  prepare(net, {x});
  EXPECT_EQ(quantized_values(*net),
            (std::vector<std::string>{"stub.output_fake_quantize", "gate.output_fake_quantize",
                                      "cat.output_fake_quantize", "mul.output_fake_quantize"}));
  calibrate(net, x);
  const auto [converted, report] = convert(net, {x});
  for (const NodeReport& node : report.nodes) EXPECT_TRUE(node.integer) << node.kind << node.reason;
  const Verification verification = verify(net, converted, x);
  EXPECT_TRUE(verification.ok()) << verification;
}

TEST_F(ConvertModelTest, EmbeddingsRunInIntegers) {
  torch::nn::Sequential model(torch::nn::Embedding(30, 8), torch::nn::Linear(8, 6),
                              torch::nn::ReLU(), torch::nn::Linear(6, 2));
  const at::Tensor words = at::arange(30).reshape({3, 10});
  prepare(model, {words});
  calibrate(model, words);
  const auto [converted, report] = convert(model, {words});
  for (const NodeReport& node : report.nodes) EXPECT_TRUE(node.integer) << node.kind;
  EXPECT_TRUE(verify(model, converted, words).ok());
}

// A layer of a transformer that gets its query, key and value from one product, with a mask.
struct Transformer : torch::nn::Module {
  Transformer() {
    register_module("stub", stub);
    register_module("qkv", qkv);
    register_module("attention", attention);
    register_module("attended", attended);
    register_module("project", project);
  }
  at::Tensor forward(const at::Tensor& x, const at::Tensor& mask) {
    const at::Tensor y = qkv->forward(stub->forward(x)).unflatten(2, {3, 2, 4});
    const auto parts = y.permute({2, 0, 3, 1, 4}).unbind(0);
    const at::Tensor z = attention->forward(parts[0], parts[1], parts[2], mask);
    return project->forward(attended->forward(z).transpose(1, 2).flatten(2));
  }
  nn::QuantStub stub{nn::QuantStubOptions().quantize_output(false)};
  torch::nn::Sequential qkv{torch::nn::Linear(6, 24)};
  nn::ScaledDotProductAttention attention{
      nn::ScaledDotProductAttentionOptions().quantize_probabilities(false)};
  nn::QuantStub attended{nn::QuantStubOptions().quantize_output(false)};
  torch::nn::Sequential project{torch::nn::Linear(8, 3)};
};

TEST_F(ConvertModelTest, AttentionRunsInIntegers) {
  torch::manual_seed(5);
  const auto net = std::make_shared<Transformer>();
  Random random(12);
  const at::Tensor x = random_floats(random, {8, 7, 6}, -1.0f, 1.0f);
  const at::Tensor mask = at::where(at::ones({7, 7}).tril().eq(1), 0.0, -10000.0).to(at::kFloat);
  prepare(net, {x, mask});
  EXPECT_EQ(quantized_values(*net),
            (std::vector<std::string>{"stub.output_fake_quantize", "qkv.0.output_fake_quantize",
                                      "attention.probability_fake_quantize",
                                      "attended.output_fake_quantize"}));
  // The key and value take the place of weights.
  EXPECT_TRUE(net->qkv->ptr<nn::LinearImpl>(0)->output_fake_quantize->options.spec().symmetric());
  EXPECT_FALSE(net->stub->output_fake_quantize->options.spec().symmetric());
  const Model with_mask(net, [&](const std::vector<at::Tensor>& inputs) -> c10::IValue {
    return net->forward(inputs[0], mask);
  });
  calibrate(with_mask, x);
  const auto [converted, report] = convert(net, {x, mask});
  for (const NodeReport& node : report.nodes) {
    EXPECT_TRUE(node.integer) << node.kind << " " << node.reason;
  }
  torch::jit::Module module = converted;
  net->eval();
  const at::NoGradGuard no_grad;
  EXPECT_TRUE(
      at::allclose(module.forward({x, mask}).toTensor(), net->forward(x, mask), 0.02, 0.02));
}

// tests/python/test_prepare.py has the same network.
struct Normalizing : torch::nn::Module {
  Normalizing() {
    register_module("stub", stub);
    register_module("first", first);
    register_module("normalized", normalized);
    register_module("second", second);
    register_module("shares", shares);
    register_module("last", last);
  }
  at::Tensor forward(const at::Tensor& x) {
    // What only a normalization reads stays as it is; what others read, too, is quantized.
    const at::Tensor y = first->forward(stub->forward(x));
    const at::Tensor z = second->forward(normalized->forward(at::layer_norm(y, {8})));
    const at::Tensor p = shares->forward(at::softmax(z, -1));
    return last->forward(p) + at::sin(z).narrow(-1, 0, 3);
  }
  nn::QuantStub stub{nn::QuantStubOptions().quantize_output(false)};
  torch::nn::Sequential first{torch::nn::Linear(6, 8)};
  nn::QuantStub normalized{nn::QuantStubOptions().quantize_output(false)};
  torch::nn::Sequential second{torch::nn::Linear(8, 8)};
  nn::QuantStub shares{nn::QuantStubOptions().quantize_output(false)};
  torch::nn::Sequential last{torch::nn::Linear(8, 3)};
};

TEST_F(ConvertModelTest, WhatIsNormalizedIsQuantizedWhereOthersReadIt) {
  torch::manual_seed(6);
  const auto net = std::make_shared<Normalizing>();
  Random random(13);
  const at::Tensor x = random_floats(random, {8, 7, 6}, -1.0f, 1.0f);
  prepare(net, {x});
  EXPECT_EQ(
      quantized_values(*net),
      (std::vector<std::string>{"stub.output_fake_quantize", "normalized.output_fake_quantize",
                                "second.0.output_fake_quantize", "shares.output_fake_quantize"}));
  calibrate(net, x);
  const auto [converted, report] = convert(net, {x});
  for (const NodeReport& node : report.nodes) {
    const bool behind = node.kind == "aten::sin" || node.kind == "aten::add" ||
                        node.kind == "aten::narrow" || node.kind == "aten::slice";
    EXPECT_TRUE(node.integer || behind) << node.kind << " " << node.reason;
  }
}

TEST_F(ConvertModelTest, LinearLayersQuantizeRowsByTheirOwnRange) {
  torch::manual_seed(7);
  const auto net = std::make_shared<Normalizing>();
  Random random(14);
  const at::Tensor x = random_floats(random, {8, 7, 6}, -1.0f, 1.0f);
  prepare(net, {x}, QConfig().activation_quantizer(ActivationQuantizer::kDynamic));
  EXPECT_EQ(quantized_values(*net), std::vector<std::string>{});
  calibrate(net, x);
  const auto [converted, report] = convert(net, {x});
  int linears = 0;
  for (const NodeReport& node : report.nodes) {
    if (node.kind != "aten::linear") continue;
    ++linears;
    EXPECT_TRUE(node.integer) << node.reason;
  }
  EXPECT_EQ(linears, 3);
  torch::jit::Module module = converted;
  net->eval();
  const at::NoGradGuard no_grad;
  EXPECT_TRUE(at::allclose(module.forward({x}).toTensor(), net->forward(x), 0.02, 0.02));
}

TEST_F(ConvertModelTest, VerifyFindsAnotherModel) {
  Network net = calibrated();
  const auto converted = convert(net, {images(7)}).module;
  {
    const at::NoGradGuard no_grad;
    net->stem->ptr<nn::Conv2dImpl>(0)->weight.mul_(1.2);
  }
  const Verification verification = verify(net, converted, images(8));
  EXPECT_FALSE(verification.ok());
  for (const size_t width : {60, 72}) {
    std::istringstream table(verification.table(width));
    std::string whole;  // names are folded, not cut
    for (std::string line; std::getline(table, line) && !line.starts_with("Outputs:");) {
      EXPECT_LE(line.size(), width) << line;
      whole += line.substr(0, line.find(' '));
    }
    EXPECT_NE(whole.find("blocks.1.body.3.output_fake_quantize"), std::string::npos) << whole;
  }
  EXPECT_NE(verification.verdict().find("Different: first at stem.0.output_fake_quantize"),
            std::string::npos)
      << verification.verdict();
  EXPECT_ERROR(c10::ValueError, "data is empty", verify(net, converted, std::vector<at::Tensor>{}));
  Network plain = network();
  EXPECT_ERROR(c10::ValueError, "model has no quantization", verify(plain, converted, images(1)));
}

TEST_F(ConvertModelTest, NeedsACalibratedModel) {
  Network net = network();
  EXPECT_ERROR(c10::ValueError, "qatx.convert: the model has no quantization",
               convert(net, {images(1)}));
  prepare(net, {images(1)});
  EXPECT_ERROR(c10::ValueError, "Without a scale: stub.output_fake_quantize",
               convert(net, {images(1)}));
}

TEST_F(TraceTest, SharesParametersUnderTheirPathsAndKeepsTheModel) {
  Network net = calibrated();
  torch::jit::Module traced = trace(net, {images(1)});
  EXPECT_TRUE(net->is_training());
  EXPECT_TRUE(net->parameters()[0].requires_grad());
  bool found = false;
  for (const auto& item : traced.named_parameters()) {
    found |= item.name == "blocks.0.body.0.weight" &&
             item.value.is_same(net->named_parameters()["blocks.0.body.0.weight"]);
  }
  EXPECT_TRUE(found);
  net->eval();
  const at::Tensor x = images(9);
  EXPECT_TRUE(same_bits(traced.forward({x}).toTensor().detach(), net->forward(x).detach()));
}

TEST_F(TrainingTest, WeightDecayReachesWeightsOnly) {
  Network net = calibrated();
  const ParameterGroups groups = parameter_groups(*net);
  EXPECT_EQ(groups.weights.size() + groups.others.size(), net->parameters().size());
  for (const at::Tensor& t : groups.weights) EXPECT_GT(t.dim(), 1);
  for (const at::Tensor& t : groups.others) EXPECT_LE(t.dim(), 1);
  // One step without a gradient of the loss: what is left is decay.
  const auto options = torch::optim::SGDOptions(0.5).weight_decay(0.25);
  auto optimizer = make_optimizer<torch::optim::SGD>(*net, options);
  std::vector<at::Tensor> before;
  for (const at::Tensor& t : net->parameters()) {
    t.mutable_grad() = at::zeros_like(t);
    before.push_back(t.detach().clone());
  }
  optimizer.step();
  for (size_t i = 0; i < before.size(); ++i) {
    const at::Tensor now = net->parameters()[i].detach();
    EXPECT_TRUE(same_bits(now, now.dim() > 1 ? before[i] * 0.875 : before[i]));
  }
  EXPECT_ERROR(c10::ValueError, "weight_decay must be finite and at least 0, got -1",
               make_optimizer<torch::optim::SGD>(
                   *net, torch::optim::SGDOptions(options).weight_decay(-1.0)));
}

TEST_F(TrainingTest, SchedulersOfLibTorchReachAllGroups) {
  Network net = calibrated();
  auto optimizer =
      make_optimizer<torch::optim::SGD>(*net, torch::optim::SGDOptions(0.5).weight_decay(0.25));
  torch::optim::StepLR scheduler(optimizer, /*step_size=*/2, /*gamma=*/0.1);
  for (int step = 0; step < 3; ++step) scheduler.step();
  ASSERT_EQ(optimizer.param_groups().size(), 2u);
  for (auto& group : optimizer.param_groups()) {
    EXPECT_DOUBLE_EQ(group.options().get_lr(), 0.05);
  }
  const auto decay = [&](size_t group) {
    return static_cast<torch::optim::SGDOptions&>(optimizer.param_groups()[group].options())
        .weight_decay();
  };
  EXPECT_EQ(decay(0), 0.25);
  EXPECT_EQ(decay(1), 0.0);
}

TEST_F(TrainingTest, FrozenBatchNormIsWhatIsDeployed) {
  Network net = calibrated();
  freeze_batch_norm(*net);
  net->train();
  net->head[1]->eval();  // dropout
  const at::Tensor x = images(10);
  const at::Tensor training = net->forward(x).detach();
  net->eval();
  EXPECT_TRUE(same_bits(training, net->forward(x).detach()));
}

}  // namespace
}  // namespace qatx
