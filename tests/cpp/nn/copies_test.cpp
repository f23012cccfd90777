// What LibTorch's users do with any module, done with each of qatx::nn: clone(), torch::save() and
// torch::load(), eval() of what holds it, to(), and <<.

#include <torch/serialize.h>

#include <sstream>

#include "../tensor_testing.h"
#include "qatx/nn/nn.h"

namespace qatx::nn {
namespace {

using qatx::testing::Random;
using qatx::testing::random_floats;
using qatx::testing::same_bits;

at::Tensor values(unsigned seed, at::IntArrayRef sizes) {
  Random random(seed);
  return random_floats(random, sizes, -2.0f, 3.0f);
}

std::vector<std::shared_ptr<FakeQuantizeImpl>> fake_quantizes(torch::nn::Module& module) {
  std::vector<std::shared_ptr<FakeQuantizeImpl>> found;
  for (const auto& child : module.modules()) {
    if (auto f = std::dynamic_pointer_cast<FakeQuantizeImpl>(child)) found.push_back(f);
  }
  return found;
}

// - make: makes the module, uncalibrated.
// - forward: calls a holder of its kind, with tensors of a dtype.
template <class Make, class Forward>
void check_copies(const std::string& name, const Make& make, const Forward& forward) {
  SCOPED_TRACE(name);
  torch::manual_seed(1);
  auto module = make();
  using Holder = decltype(module);
  EXPECT_FALSE(fake_quantizes(*module).empty());
  for (const auto& f : fake_quantizes(*module)) f->begin_calibration();
  forward(module, at::kFloat);
  for (const auto& f : fake_quantizes(*module)) f->finish_calibration();

  // The mode reaches quantizers, which learn in training only, from whatever holds the module.
  torch::nn::Module outer;
  outer.register_module("module", module);
  outer.eval();
  for (const auto& f : fake_quantizes(*module)) EXPECT_FALSE(f->is_training());
  const at::Tensor expected = forward(module, at::kFloat).detach();

  Holder copy(std::dynamic_pointer_cast<typename Holder::ContainedType>(module->clone(at::kCPU)));
  for (const auto& f : fake_quantizes(*copy)) EXPECT_FALSE(f->is_training());
  EXPECT_TRUE(same_bits(forward(copy, at::kFloat).detach(), expected));
  EXPECT_EQ(copy->named_parameters().keys(), module->named_parameters().keys());
  for (const auto& item : copy->named_parameters()) {
    EXPECT_FALSE(item.value().is_same(module->named_parameters()[item.key()])) << item.key();
  }

  std::stringstream file;
  torch::save(module, file);
  torch::manual_seed(2);
  auto loaded = make();
  torch::load(loaded, file);
  loaded->eval();
  EXPECT_TRUE(same_bits(forward(loaded, at::kFloat).detach(), expected));

  std::ostringstream text;
  text << module;
  EXPECT_EQ(text.str().rfind("qatx::nn::" + name + "(", 0), 0) << text.str();

  module->to(at::kDouble);
  for (const at::Tensor& t : module->parameters()) EXPECT_EQ(t.scalar_type(), at::kDouble);
  const at::Tensor wide = forward(module, at::kDouble).detach();
  EXPECT_EQ(wide.scalar_type(), at::kDouble);
  EXPECT_TRUE(at::allclose(wide.to(at::kFloat), expected, 1e-5, 0.05));  // a code, now and then
  module->to(at::kFloat);
  EXPECT_TRUE(same_bits(forward(module, at::kFloat).detach(), expected));
}

// Of a module that takes one tensor.
auto with(const at::Tensor& x) {
  return [x](auto module, at::ScalarType dtype) { return module->forward(x.to(dtype)); };
}

TEST(CopiesTest, OfLayers) {
  const at::Tensor images = values(1, {2, 4, 6, 6});
  check_copies(
      "Conv1d", [] { return Conv1d(Conv1dOptions(4, 4, 3)); }, with(values(2, {2, 4, 12})));
  check_copies("Conv2d", [] { return Conv2d(Conv2dOptions(4, 6, 3).groups(2)); }, with(images));
  check_copies(
      "Conv3d", [] { return Conv3d(Conv3dOptions(2, 4, 2)); }, with(values(3, {2, 2, 3, 4, 5})));
  check_copies(
      "ConvTranspose2d", [] { return ConvTranspose2d(ConvTranspose2dOptions(4, 3, 2).stride(2)); },
      with(images));
  check_copies(
      "ConvBn2d", [] { return ConvBn2d(ConvBn2dOptions(4, 6, 3).relu(Relu::kRelu)); },
      with(images));
  check_copies("Linear", [] { return Linear(LinearOptions(6, 5).bias(false)); }, with(images));
  check_copies(
      "Embedding", [] { return Embedding(EmbeddingOptions(7, 4)); },
      [](auto module, at::ScalarType) { return module->forward(at::arange(7)); });
}

TEST(CopiesTest, OfWhatCombinesValues) {
  const at::Tensor a = values(4, {2, 3, 4});
  const at::Tensor b = values(5, {2, 3, 4});
  const auto with_both = [&](auto module, at::ScalarType dtype) {
    return module->forward(a.to(dtype), b.to(dtype));
  };
  check_copies("QuantStub", [] { return QuantStub(); }, with(a));
  check_copies("Add", [] { return Add(AddOptions().relu(Relu::kRelu6)); }, with_both);
  check_copies("Mul", [] { return Mul(); }, with_both);
  check_copies(
      "Cat", [] { return Cat(); },
      [&](auto module, at::ScalarType dtype) {
        return module->forward({a.to(dtype), b.to(dtype)});
      });
  check_copies(
      "ScaledDotProductAttention", [] { return ScaledDotProductAttention(); },
      [&](auto module, at::ScalarType dtype) {
        return module->forward(a.to(dtype), b.to(dtype), b.to(dtype));
      });
}

TEST(CopiesTest, OfQuantizers) {
  const QuantSpec activations(8, false, false);
  const QuantSpec weights(4, true, true, 0);
  const at::Tensor x = values(6, {3, 40});
  check_copies(
      "FakeQuantize",
      [&] { return FakeQuantize(FakeQuantizeOptions(activations, Role::kActivation)); }, with(x));
  check_copies(
      "MovingAverage",
      [&] { return MovingAverage(FakeQuantizeOptions(activations, Role::kActivation)); }, with(x));
  check_copies(
      "PACT",
      [&] { return PACT(FakeQuantizeOptions(QuantSpec(8, false, false), Role::kActivation)); },
      with(x));
  check_copies(
      "DoReFa",
      [&] { return DoReFa(FakeQuantizeOptions(weights, Role::kWeight).scale_shape({3})); },
      with(x));
}

}  // namespace
}  // namespace qatx::nn
