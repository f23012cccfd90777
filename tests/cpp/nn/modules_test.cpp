// The modules: what they compute, by LibTorch's own modules and qatx's operators; states; copies;
// files. That they are the twins of Python's is tested from Python (test_cpp_parity.py).

#include <ATen/ops/scaled_dot_product_attention.h>
#include <torch/nn/functional/activation.h>
#include <torch/nn/modules/container/sequential.h>
#include <torch/nn/modules/linear.h>
#include <torch/optim/sgd.h>
#include <torch/serialize.h>

#include <sstream>

#include "../tensor_testing.h"
#include "qatx/core/qparams.h"
#include "qatx/nn/nn.h"
#include "qatx/ops/fake_quantize.h"

namespace qatx::nn {
namespace {

using qatx::testing::floats;
using qatx::testing::Random;
using qatx::testing::random_floats;
using qatx::testing::same_bits;

at::Tensor image(unsigned seed, at::IntArrayRef sizes = {2, 3, 6, 6}) {
  Random random(seed);
  return random_floats(random, sizes, -2.0f, 3.0f);
}

std::vector<FakeQuantizeImpl*> fake_quantizes(torch::nn::Module& module) {
  std::vector<FakeQuantizeImpl*> found;
  for (const auto& child : module.modules()) {
    if (auto* f = child->as<FakeQuantizeImpl>()) found.push_back(f);
  }
  return found;
}

// Runs `module` on x in the state kCalibrate, then fixes the ranges.
template <class Module>
at::Tensor calibrate_on(Module& module, const at::Tensor& x) {
  for (auto* f : fake_quantizes(*module)) f->begin_calibration();
  const at::Tensor y = module->forward(x);
  for (auto* f : fake_quantizes(*module)) f->finish_calibration();
  return y;
}

FakeQuantizeOptions activation_options() {
  return FakeQuantizeOptions(QuantSpec(8, false, false), Role::kActivation);
}

TEST(FakeQuantizeModuleTest, IsTheOperatorWithCalibratedScales) {
  FakeQuantize f(activation_options());
  f->begin_calibration();
  const at::Tensor x = floats({-1, 0.3f, 2, 3});
  EXPECT_TRUE(same_bits(f->forward(x), x));
  f->finish_calibration();
  const auto [scale, zero_point] =
      choose_qparams(floats({-1}).squeeze(0), floats({3}).squeeze(0), QuantSpec(8, false, false));
  EXPECT_TRUE(same_bits(f->scale.detach(), scale));
  EXPECT_TRUE(same_bits(f->zero_point.detach(), zero_point));
  EXPECT_TRUE(same_bits(f->forward(x).detach(), fake_quantize(x, scale, zero_point, 0, 255)));
}

TEST(FakeQuantizeModuleTest, StatesDecideWhatIsLearned) {
  FakeQuantize f(activation_options());
  EXPECT_ERROR(c10::Error, "FakeQuantize has no scale yet: call qatx.calibrate(model, data)",
               f->forward(floats({1})));
  EXPECT_ERROR(c10::Error, "FakeQuantize has no scale yet", f->freeze());
  f->begin_calibration();
  EXPECT_ERROR(c10::ValueError, "no finite value", f->finish_calibration());
  EXPECT_EQ(f->state(), State::kCalibrate);
  f->forward(floats({1, 2}));
  f->finish_calibration();
  EXPECT_TRUE(f->scale.requires_grad() && f->zero_point.requires_grad());
  f->forward(floats({1.23f, 5})).sum().backward();
  EXPECT_TRUE(f->scale.grad().defined());
  f->freeze();
  EXPECT_FALSE(f->scale.requires_grad() || f->scale.grad().defined());
  f->unfreeze();
  EXPECT_TRUE(f->scale.requires_grad());
  f->reset_parameters();
  EXPECT_EQ(f->state(), State::kUncalibrated);
}

TEST(FakeQuantizeModuleTest, RejectsWhatDoesNotGoTogether) {
  const QuantSpec per_channel(8, true, true, 0);
  EXPECT_ERROR(c10::ValueError, "scale_shape must be (channels,)",
               FakeQuantize(FakeQuantizeOptions(per_channel, Role::kWeight)));
  EXPECT_ERROR(c10::ValueError, "scale_shape must be () (one scale for the tensor)",
               FakeQuantize(activation_options().scale_shape({3})));
  EXPECT_ERROR(c10::ValueError, "range_method must be one of min_max, ",
               FakeQuantize(activation_options().range_method("widest")));
  EXPECT_ERROR(c10::ValueError, "PACT: spec must be unsigned",
               PACT(FakeQuantizeOptions(QuantSpec(), Role::kActivation)));
  EXPECT_ERROR(c10::ValueError, "PACT: power_of_two, stochastic_rounding and pass_through",
               PACT(activation_options().power_of_two(true)));
  EXPECT_ERROR(c10::ValueError, "DoReFa: spec must be signed and symmetric",
               DoReFa(FakeQuantizeOptions(QuantSpec(8), Role::kWeight)));
  EXPECT_ERROR(c10::ValueError, "QConfig: weight.axis must be 0 or none, got 1",
               Linear(LinearOptions(2, 2).qconfig(QConfig().weight(QuantSpec(8, true, true, 1)))));
  EXPECT_ERROR(
      c10::ValueError, "QConfig: activation.axis must be none, got 1",
      Linear(LinearOptions(2, 2).qconfig(QConfig().activation(QuantSpec(8, false, false, 1)))));
}

TEST(FakeQuantizeModuleTest, ObservesItsOwnShapeAndDtypeOnly) {
  FakeQuantize f(
      FakeQuantizeOptions(QuantSpec(8, true, true, 0), Role::kActivation).scale_shape({3}));
  f->begin_calibration();
  EXPECT_ERROR(c10::ValueError, "must have scales of shape [3]", f->forward(at::ones({4, 2})));
  EXPECT_ERROR(c10::TypeError, "the input must be Float, got Double",
               f->forward(at::ones({3, 2}, at::kDouble)));
}

TEST(FakeQuantizeModuleTest, StochasticRoundingFollowsTheModeAndTheGenerator) {
  FakeQuantize f(activation_options().stochastic_rounding(true));
  f->begin_calibration();
  const at::Tensor x = image(1);
  f->forward(x);
  f->finish_calibration();
  const auto rounded = [&](uint64_t seed) {
    f->generator = at::make_generator<at::CPUGeneratorImpl>(seed);
    return f->forward(x).detach();
  };
  EXPECT_TRUE(same_bits(rounded(3), rounded(3)));
  EXPECT_FALSE(same_bits(rounded(3), rounded(4)));
  f->eval();
  EXPECT_TRUE(same_bits(rounded(3), rounded(4)));
}

TEST(QuantizersTest, MovingAverageMovesInTrainingOnly) {
  MovingAverage f(activation_options());
  f->begin_calibration();
  f->forward(floats({0, 1}));
  f->finish_calibration();
  f->eval();
  f->forward(floats({0, 9}));
  EXPECT_TRUE(same_bits(f->running_max, qatx::testing::scalar(1)));
  f->train();
  f->forward(floats({0, 9}));
  EXPECT_TRUE(same_bits(f->running_max, qatx::testing::scalar(1.0f + 0.01f * 8.0f)));
  EXPECT_TRUE(f->parameters().empty());
}

TEST(QuantizersTest, DoReFaKeepsTheLargestMagnitude) {
  DoReFa f(FakeQuantizeOptions(QuantSpec(2, true, true, 0), Role::kWeight).scale_shape({2}));
  f->begin_calibration();
  const at::Tensor w = floats({0.5f, -0.1f, 0.2f, -2.0f}).reshape({2, 2});
  f->forward(w);
  f->finish_calibration();
  const at::Tensor y = f->forward(w);
  EXPECT_TRUE(at::allclose(y.abs().amax(1), floats({0.5f, 2.0f})));
}

// A float layer, the same weights quantized, and what LibTorch computes with them.
TEST(LayersTest, AreLibTorchsWithQuantizedWeights) {
  torch::manual_seed(0);
  const at::Tensor x = image(2);
  torch::nn::Conv2d conv(torch::nn::Conv2dOptions(3, 4, 3).stride(2).padding(1).bias(false));
  Conv2d quantized = from_float(*conv, {.relu = Relu::kRelu6, .quantize_output = false});
  EXPECT_TRUE(same_bits(calibrate_on(quantized, x).detach(), at::relu6(conv->forward(x)).detach()));
  EXPECT_TRUE(quantized->weight.is_same(conv->weight));
  const at::Tensor w = quantized->weight_fake_quantize->forward(conv->weight);
  const at::Tensor expected = at::relu6(at::conv2d(x, w, {}, 2, 1));
  EXPECT_TRUE(same_bits(quantized->forward(x).detach(), expected.detach()));

  torch::nn::Conv1d line(torch::nn::Conv1dOptions(3, 4, 3).padding(torch::kSame));
  Conv1d quantized_line = from_float(*line, {.quantize_output = false});
  const at::Tensor signal = image(9, {2, 3, 12});
  EXPECT_TRUE(
      same_bits(calibrate_on(quantized_line, signal).detach(), line->forward(signal).detach()));

  torch::nn::Conv3d volume(torch::nn::Conv3dOptions(2, 4, {1, 2, 3}).stride(2).groups(2));
  Conv3d quantized_volume = from_float(*volume, {.quantize_output = false});
  const at::Tensor block = image(10, {2, 2, 3, 4, 5});
  EXPECT_TRUE(
      same_bits(calibrate_on(quantized_volume, block).detach(), volume->forward(block).detach()));

  torch::nn::Embedding table(torch::nn::EmbeddingOptions(7, 4).padding_idx(-2));
  Embedding quantized_table = from_float(*table, {.quantize_output = false});
  const at::Tensor indices = at::arange(7).reshape({7, 1});
  EXPECT_EQ(quantized_table->weight_fake_quantize->scale_shape(), std::vector<int64_t>{7});
  EXPECT_TRUE(
      same_bits(calibrate_on(quantized_table, indices).detach(), table->forward(indices).detach()));
  EXPECT_TRUE(at::allclose(quantized_table->forward(indices), table->forward(indices), 0, 0.03));

  torch::nn::ConvTranspose2d up(
      torch::nn::ConvTranspose2dOptions(3, 4, 3).stride(2).padding(1).output_padding(1));
  ConvTranspose2d quantized_up = from_float(*up, {.quantize_output = false});
  EXPECT_EQ(quantized_up->weight_fake_quantize->scale_shape(), std::vector<int64_t>{4});
  EXPECT_TRUE(same_bits(calibrate_on(quantized_up, x).detach(), up->forward(x).detach()));

  torch::nn::ConvTranspose2d grouped(
      torch::nn::ConvTranspose2dOptions(3, 6, 3).groups(3).dilation(2));
  ConvTranspose2d quantized_grouped = from_float(*grouped, {.quantize_output = false});
  EXPECT_EQ(quantized_grouped->weight_fake_quantize->scale_shape(), std::vector<int64_t>{6});
  EXPECT_TRUE(same_bits(calibrate_on(quantized_grouped, x).detach(), grouped->forward(x).detach()));

  torch::nn::ConvTranspose1d longer(torch::nn::ConvTranspose1dOptions(3, 4, 3).stride(2));
  ConvTranspose1d quantized_longer = from_float(*longer, {.quantize_output = false});
  const at::Tensor flat = x.flatten(2);
  EXPECT_TRUE(
      same_bits(calibrate_on(quantized_longer, flat).detach(), longer->forward(flat).detach()));

  torch::nn::ConvTranspose3d larger(torch::nn::ConvTranspose3dOptions(3, 4, 2).stride(2));
  ConvTranspose3d quantized_larger = from_float(*larger, {.quantize_output = false});
  const at::Tensor thin = x.unsqueeze(2);
  EXPECT_TRUE(
      same_bits(calibrate_on(quantized_larger, thin).detach(), larger->forward(thin).detach()));

  torch::nn::Linear linear(6, 4);
  Linear quantized_linear = from_float(*linear, {.relu = Relu::kRelu});
  EXPECT_TRUE(
      same_bits(calibrate_on(quantized_linear, x).detach(), at::relu(linear->forward(x)).detach()));
  const at::Tensor out = quantized_linear->forward(x).detach();
  const at::Tensor codes = out / quantized_linear->output_fake_quantize->scale.detach();
  EXPECT_TRUE(at::allclose(codes, codes.round(), 1e-5, 1e-4));
}

TEST(LayersTest, ConvBn2dFoldsWhatLibTorchNormalizes) {
  torch::manual_seed(1);
  const at::Tensor x = image(3, {8, 3, 6, 6});
  torch::nn::Conv2d conv(torch::nn::Conv2dOptions(3, 4, 3).padding(1));
  torch::nn::BatchNorm2d bn(4);
  bn->weight.set_data(floats({0.5f, -2, 1, 3}));
  bn->bias.set_data(floats({1, 0, -1, 2}));
  // In double, so that only the folding itself is compared.
  const at::Tensor expected_training =
      at::batch_norm(conv->forward(x).to(at::kDouble), bn->weight.to(at::kDouble),
                     bn->bias.to(at::kDouble), {}, {}, true, 0.1, 1e-5, false);
  ConvBn2d folded = from_float(*conv, bn, {.quantize_output = false});
  const at::Tensor training = calibrate_on(folded, x);
  EXPECT_TRUE(at::allclose(training.to(at::kDouble), expected_training, 1e-4, 1e-4));
  EXPECT_FALSE(same_bits(bn->running_mean, at::zeros({4})));
  folded->eval();
  for (auto* f : fake_quantizes(*folded)) f->begin_calibration();
  const at::Tensor deployed = folded->forward(x);
  EXPECT_TRUE(at::allclose(deployed, bn->forward(conv->forward(x)), 1e-4, 1e-4));
  // Frozen, training computes what is deployed.
  folded->train();
  folded->batch_norm_frozen = true;
  EXPECT_TRUE(same_bits(folded->forward(x).detach(), deployed.detach()));
}

TEST(LayersTest, CombineQuantizesOnceAndSharesAScale) {
  const at::Tensor a = image(4);
  const at::Tensor b = image(5);
  Add add(AddOptions().relu(Relu::kRelu).quantize_output(false));
  EXPECT_TRUE(same_bits(add->forward(a, b), at::relu(a + b)));
  Mul mul(MulOptions().quantize_output(false));
  EXPECT_TRUE(same_bits(mul->forward(a, b), a * b));
  QuantStub stub(QuantStubOptions().quantize_output(false));
  EXPECT_TRUE(stub->forward(a).is_same(a));
  Cat cat;
  cat->output_fake_quantize->begin_calibration();
  EXPECT_TRUE(same_bits(cat->forward({a, b}), at::cat({a, b}, 1)));
  cat->output_fake_quantize->finish_calibration();
  cat->eval();
  const at::Tensor both = cat->output_fake_quantize->forward(at::cat({a, b}, 1));
  EXPECT_TRUE(same_bits(cat->forward({a, b}).detach(), both.detach()));
  EXPECT_ERROR(c10::ValueError, "Cat: tensors must hold at least one", cat->forward({}));
}

TEST(LayersTest, RefuseWhatTheyCannotDo) {
  torch::nn::Conv2d circular(torch::nn::Conv2dOptions(3, 4, 3).padding_mode(torch::kCircular));
  EXPECT_ERROR(c10::ValueError, "Conv2d: padding_mode must be 'zeros'", from_float(*circular));
  torch::nn::Linear wide(2, 2);
  wide->to(at::kDouble);
  EXPECT_ERROR(c10::ValueError, "Linear: the weight must be float32, got Double",
               from_float(*wide));
  torch::nn::Conv2d conv(torch::nn::Conv2dOptions(3, 4, 3));
  EXPECT_ERROR(c10::ValueError, "bn must have the 4 channels of the convolution, got 5",
               from_float(*conv, torch::nn::BatchNorm2d(5)));
  EXPECT_ERROR(c10::ValueError, "bn must have running statistics",
               from_float(*conv, torch::nn::BatchNorm2d(
                                     torch::nn::BatchNormOptions(4).track_running_stats(false))));
}

TEST(LayersTest, TakingOverLeavesRandomNumbersAlone) {
  torch::nn::Linear linear(3, 3);
  torch::manual_seed(7);
  from_float(*linear);
  const at::Tensor after = at::rand({4});
  torch::manual_seed(7);
  EXPECT_TRUE(same_bits(after, at::rand({4})));
}

torch::nn::Sequential network() {
  torch::manual_seed(2);
  return torch::nn::Sequential(
      QuantStub(), ConvBn2d(ConvBn2dOptions(3, 8, 3).padding(1).relu(Relu::kRelu)),
      Conv2d(Conv2dOptions(8, 4, 3).qconfig(
          QConfig()
              .weight(QuantSpec(4, true, true, 0))
              .weight_quantizer(WeightQuantizer::kDoReFa)
              .activation_quantizer(ActivationQuantizer::kMovingAverage))),
      torch::nn::Flatten(), Linear(LinearOptions(64, 5).quantize_output(false)));
}

TEST(SequentialTest, TrainsWithAnOptimizerMadeBeforeCalibration) {
  torch::nn::Sequential net = network();
  torch::optim::SGD optimizer(net->parameters(), 0.1);
  const at::Tensor x = image(6);
  calibrate_on(net, x);
  const at::Tensor scale = net->ptr<QuantStubImpl>(0)->output_fake_quantize->scale;
  const at::Tensor before = scale.detach().clone();
  double first = 0.0;
  double last = 0.0;
  for (int step = 0; step < 20; ++step) {
    optimizer.zero_grad();
    const at::Tensor loss = net->forward(x).square().mean();
    loss.backward();
    optimizer.step();
    (step == 0 ? first : last) = loss.item<double>();
  }
  EXPECT_LT(last, 0.5 * first);
  EXPECT_FALSE(same_bits(scale.detach(), before));
}

TEST(SequentialTest, CloneIsIndependentAndComputesTheSame) {
  torch::nn::Sequential net = network();
  const at::Tensor x = image(7);
  calibrate_on(net, x);
  net->ptr<ConvBn2dImpl>(1)->batch_norm_frozen = true;
  net->ptr<Conv2dImpl>(2)->output_fake_quantize->freeze();
  net->eval();
  auto copy = std::dynamic_pointer_cast<torch::nn::SequentialImpl>(net->clone());
  EXPECT_EQ(copy->ptr<Conv2dImpl>(2)->output_fake_quantize->state(), State::kFrozen);
  copy->eval();
  const at::Tensor expected = net->forward(x).detach();
  EXPECT_TRUE(same_bits(copy->forward(x).detach(), expected));
  const at::NoGradGuard no_grad;
  for (const at::Tensor& parameter : copy->parameters()) parameter.mul_(1.5);
  EXPECT_FALSE(same_bits(copy->forward(x), expected));
  EXPECT_TRUE(same_bits(net->forward(x), expected));
}

TEST(SequentialTest, SaveAndLoadKeepStateAndObservations) {
  torch::nn::Sequential net = network();
  const at::Tensor x = image(8);
  calibrate_on(net, x);
  net->ptr<ConvBn2dImpl>(1)->batch_norm_frozen = true;
  auto& stub = net->ptr<QuantStubImpl>(0)->output_fake_quantize;
  stub->begin_calibration();
  stub->forward(x);
  std::stringstream file;
  torch::save(net, file);
  torch::nn::Sequential loaded = network();
  torch::load(loaded, file);
  EXPECT_TRUE(loaded->ptr<ConvBn2dImpl>(1)->batch_norm_frozen);
  auto& loaded_stub = loaded->ptr<QuantStubImpl>(0)->output_fake_quantize;
  EXPECT_EQ(loaded_stub->state(), State::kCalibrate);
  EXPECT_TRUE(at::equal(loaded_stub->observer()->histogram(), stub->observer()->histogram()));
  stub->finish_calibration();
  loaded_stub->finish_calibration();
  net->eval();
  loaded->eval();
  EXPECT_TRUE(same_bits(loaded->forward(x).detach(), net->forward(x).detach()));
  EXPECT_ERROR(c10::ValueError, "unknown state 9",
               stub->set_extra_state(at::full({}, 9, at::kByte)));
}

TEST(SequentialTest, PrintsOptionsAndStates) {
  std::ostringstream out;
  out << network();
  for (const char* part :
       {"qatx::nn::QuantStub(), relu=none", "qatx::nn::ConvBn2d(3, 8, kernel_size=[3, 3]",
        "relu=relu, batch_norm_frozen=false", "qatx::nn::DoReFa(QuantSpec(bits=4",
        "state=uncalibrated", "qatx::nn::Linear(in_features=64, out_features=5"}) {
    EXPECT_NE(out.str().find(part), std::string::npos) << part << " is not in\n" << out.str();
  }
}

struct Attended {
  at::Tensor query = image(20, {2, 3, 5, 8});
  at::Tensor key = image(21, {2, 3, 6, 8});
  at::Tensor value = image(22, {2, 3, 6, 4});
};

TEST(AttentionTest, IsLibTorchsWithoutQuantization) {
  const auto [query, key, value] = Attended();
  ScaledDotProductAttention attention(
      ScaledDotProductAttentionOptions().quantize_probabilities(false));
  EXPECT_TRUE(fake_quantizes(*attention).empty());
  const at::Tensor added = image(23, {2, 1, 5, 6});
  for (const at::Tensor& mask : {at::Tensor(), added, added > 0}) {
    std::optional<at::Tensor> wanted;
    if (mask.defined()) wanted = mask;
    EXPECT_TRUE(at::allclose(attention->forward(query, key, value, mask),
                             at::scaled_dot_product_attention(query, key, value, wanted), 1e-5,
                             1e-5,
                             /*equal_nan=*/true));
  }
  EXPECT_TRUE(at::allclose(attention->forward(query, key, value, {}, 0.0, true, 0.3),
                           at::scaled_dot_product_attention(query, key, value, {}, 0.0, true, 0.3),
                           1e-5, 1e-5));
  EXPECT_TRUE(attention->forward(query, key, value, {}, 1.0).eq(0.0).all().item<bool>());
}

TEST(AttentionTest, QuantizesProbabilitiesAndIsCopiedWithThem) {
  const auto [query, key, value] = Attended();
  ScaledDotProductAttention attention(
      ScaledDotProductAttentionOptions().qconfig(QConfig().activation(QuantSpec(2, false, false))));
  for (auto* f : fake_quantizes(*attention)) f->begin_calibration();
  attention->forward(query, key, value);
  attention->probability_fake_quantize->finish_calibration();
  const at::Tensor codes = attention->forward(query, key, at::eye(6).expand({2, 3, 6, 6}));
  EXPECT_LE(std::get<0>(at::_unique(codes)).numel(), 4);  // two bits
  const auto copy = std::dynamic_pointer_cast<ScaledDotProductAttentionImpl>(attention->clone());
  EXPECT_TRUE(same_bits(copy->forward(query, key, value).detach(),
                        attention->forward(query, key, value).detach()));
}

}  // namespace
}  // namespace qatx::nn
