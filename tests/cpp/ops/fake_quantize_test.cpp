#include "qatx/ops/fake_quantize.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/empty_strided.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/autograd.h>

#include <cmath>
#include <limits>

#include "../tensor_testing.h"

namespace qatx {
namespace {

using testing::floats;
using testing::Random;
using testing::random_floats;
using testing::same_bits;
using testing::scalar;
using testing::Threads;

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

// One call of the operator and its gradients.
struct Case {
  at::Tensor x;
  at::Tensor grad;
  at::Tensor scale;
  at::Tensor zero_point;
  int64_t quant_min;
  int64_t quant_max;
  std::optional<int64_t> axis;
  double grad_scale = 1.0;

  at::Tensor forward() const {
    return fake_quantize(x, scale, zero_point, quant_min, quant_max, axis, grad_scale);
  }
  auto backward() const {
    return fake_quantize_backward(grad, x, scale, zero_point, quant_min, quant_max, axis,
                                  grad_scale);
  }
};

struct Expected {
  at::Tensor y;
  at::Tensor dx;
  std::vector<double> dscale;
  std::vector<double> dzero_point;
  std::vector<double>
      terms;  // sums of absolute terms: what the error of a float sum is measured by
};

// The numeric contract, element by element; sums in double.
Expected expected(const Case& t) {
  const auto channels = static_cast<size_t>(t.scale.numel());
  const at::Tensor scale = t.scale.contiguous().view(-1);
  const at::Tensor zero_point = t.zero_point.contiguous().view(-1);
  const at::Tensor x = t.x.contiguous();
  const at::Tensor grad = t.grad.contiguous();
  Expected e{at::empty(x.sizes(), at::kFloat), at::empty(x.sizes(), at::kFloat),
             std::vector<double>(channels), std::vector<double>(channels),
             std::vector<double>(channels)};
  int64_t inner = 1;
  if (t.axis) {
    for (int64_t d = (*t.axis + x.dim()) % x.dim() + 1; d < x.dim(); ++d) inner *= x.size(d);
  }
  for (int64_t i = 0; i < x.numel(); ++i) {
    const size_t c = t.axis ? static_cast<size_t>(i / inner) % channels : 0;
    const float s = scale.const_data_ptr<float>()[c];
    const auto low = static_cast<float>(t.quant_min);
    const auto high = static_cast<float>(t.quant_max);
    const float rounded = std::nearbyint(zero_point.const_data_ptr<float>()[c]);
    const float z = std::fmin(std::fmax(rounded, low), high);
    const float value = x.const_data_ptr<float>()[i];
    const float g = grad.const_data_ptr<float>()[i];

    const float inv_scale = 1.0f / s;
    const float scaled = value * inv_scale;
    const float v = std::nearbyint(scaled) + z;
    const bool in = v >= low && v <= high;
    const float q = std::isnan(v) ? v : std::fmin(std::fmax(v, low), high);
    e.y.mutable_data_ptr<float>()[i] = (q - z) * s;
    e.dx.mutable_data_ptr<float>()[i] = in ? g : 0.0f;
    const double steps = double{q} - double{z};
    const double scale_term = double{g} * (in ? steps - double{scaled} : steps);
    e.dscale[c] += t.grad_scale * scale_term;
    e.dzero_point[c] += t.grad_scale * (in ? 0.0 : -(double{g} * double{s}));
    e.terms[c] += t.grad_scale * (std::abs(scale_term) + std::abs(double{g} * double{s}));
  }
  return e;
}

void check_sums(const at::Tensor& actual, const at::Tensor& like, const std::vector<double>& sums,
                const std::vector<double>& terms) {
  ASSERT_EQ(actual.sizes(), like.sizes());
  for (size_t c = 0; c < sums.size(); ++c) {
    const double value = actual.reshape(-1)[static_cast<int64_t>(c)].item<float>();
    ASSERT_NEAR(value, sums[c], 1e-6 * terms[c] + 1e-30) << "channel " << c;
  }
}

void check(const Case& t) {
  SCOPED_TRACE(::testing::Message()
               << "sizes " << t.x.sizes() << ", strides " << t.x.strides() << ", codes "
               << t.quant_min << ".." << t.quant_max << ", axis " << t.axis.value_or(-99));
  const Expected e = expected(t);
  const at::Tensor y = t.forward();
  const auto [dx, dscale, dzero_point] = t.backward();
  ASSERT_TRUE(same_bits(y, e.y));
  ASSERT_TRUE(same_bits(dx, e.dx));
  check_sums(dscale, t.scale, e.dscale, e.terms);
  check_sums(dzero_point, t.zero_point, e.dzero_point, e.terms);
  if (t.x.is_non_overlapping_and_dense()) {
    EXPECT_EQ(y.strides(), t.x.strides());
    EXPECT_EQ(dx.strides(), t.x.strides());
  }
}

// A finite x around the codes' range, with ties and values on the ends of the range.
Case random_case(Random& random, const at::Tensor& layout, std::optional<int64_t> axis) {
  const int64_t bits = random.integer(2, 8);
  const bool with_sign = random.chance(0.5);
  Case t{layout,
         at::empty_like(layout),
         {},
         {},
         with_sign ? -(int64_t{1} << (bits - 1)) : 0,
         with_sign ? (int64_t{1} << (bits - 1)) - 1 : (int64_t{1} << bits) - 1,
         axis,
         random.chance(0.5) ? 1.0 : random.real(0.01f, 0.5f)};
  const int64_t channels = axis ? layout.size(*axis) : 1;
  std::vector<float> scales;
  std::vector<float> zero_points;
  for (int64_t c = 0; c < channels; ++c) {
    scales.push_back(random.chance(0.3) ? 0.25f : random.real(0.01f, 0.5f));
    zero_points.push_back(random.real(static_cast<float>(t.quant_min) - 2.0f,
                                      static_cast<float>(t.quant_max) + 2.0f));
  }
  t.scale = floats(scales);
  t.zero_point = floats(zero_points);
  const at::Tensor x = at::empty(layout.sizes(), at::kFloat);
  for (int64_t i = 0; i < x.numel(); ++i) {
    const auto code = static_cast<float>(random.integer(t.quant_min - 3, t.quant_max + 3));
    const float offset = random.chance(0.3) ? 0.5f : random.real(-0.5f, 0.5f);
    const auto c = static_cast<size_t>(random.integer(0, channels - 1));
    x.mutable_data_ptr<float>()[i] = (code - std::nearbyint(zero_points[c]) + offset) * scales[c];
  }
  t.x.copy_(x);
  t.grad.copy_(random_floats(random, layout.sizes(), -2.0f, 2.0f));
  return t;
}

// Tensors of many layouts, uninitialized.
std::vector<at::Tensor> layouts() {
  const auto make = [](at::IntArrayRef sizes) { return at::empty(sizes, at::kFloat); };
  const at::Tensor image = make({3, 5, 4, 6});
  return {
      image,
      image.contiguous(at::MemoryFormat::ChannelsLast),
      image.transpose(0, 1),
      image.permute({3, 1, 0, 2}),
      image.narrow(3, 1, 4),  // gaps in rows
      image.narrow(1, 1, 3),  // gaps between images
      make({3, 9, 4, 6}).contiguous(at::MemoryFormat::ChannelsLast).narrow(1, 2, 4),
      make({4, 12}).t().slice(0, 0, 12, 2),  // gaps, transposed
      make({1, 5, 1, 1}),
      make({4, 1, 3, 3}).contiguous(at::MemoryFormat::ChannelsLast),
      make({1, 1}),
      make({7}),
      make({2, 70}),
      make({3, 4, 5000}),  // longer than a block
      make({2, 3, 4, 5, 6}).contiguous(at::MemoryFormat::ChannelsLast3d),
      make({300, 130}),
  };
}

TEST(FakeQuantizeTest, PerTensorInEveryLayout) {
  Random random(1);
  for (const at::Tensor& layout : layouts()) {
    for (int i = 0; i < 4; ++i) check(random_case(random, layout, std::nullopt));
  }
  Case zero_dimensional = random_case(random, at::empty({}, at::kFloat), std::nullopt);
  check(zero_dimensional);
  zero_dimensional.scale = zero_dimensional.scale.squeeze(0);
  check(zero_dimensional);
}

TEST(FakeQuantizeTest, PerChannelInEveryLayoutAndOnEveryAxis) {
  Random random(2);
  for (const at::Tensor& layout : layouts()) {
    for (int64_t axis = 0; axis < layout.dim(); ++axis) {
      Case t = random_case(random, layout, axis);
      check(t);
      const at::Tensor from_the_front = t.forward();
      t.axis = axis - layout.dim();
      EXPECT_TRUE(same_bits(t.forward(), from_the_front)) << "axis " << *t.axis;
    }
  }
}

TEST(FakeQuantizeTest, GradientInAnotherLayoutThanX) {
  Random random(3);
  const at::Tensor image = at::empty({2, 6, 5, 3}, at::kFloat);
  for (const auto axis : {std::optional<int64_t>(), std::optional<int64_t>(1)}) {
    Case t = random_case(random, image, axis);
    t.grad = t.grad.contiguous(at::MemoryFormat::ChannelsLast);
    check(t);
    t.grad = random_floats(random, {2, 1, 5, 1}, -1.0f, 1.0f).expand({2, 6, 5, 3});
    check(t);
    t.x = t.x.contiguous(at::MemoryFormat::ChannelsLast);
    check(t);
    t.grad = t.grad.contiguous();
    check(t);
  }
}

TEST(FakeQuantizeTest, StridedScalesAndZeroPoints) {
  Random random(4);
  Case t = random_case(random, at::empty({3, 5}, at::kFloat), 1);
  t.scale = at::empty({5, 2}, at::kFloat).select(1, 0).copy_(t.scale);
  t.zero_point = scalar(1.0f).expand({5});
  check(t);
}

TEST(FakeQuantizeTest, PerTensorIsPerChannelWithOneChannel) {
  Random random(5);
  Case t = random_case(random, at::empty({1, 40, 30}, at::kFloat), std::nullopt);
  const auto [dx, dscale, dzero_point] = t.backward();
  const at::Tensor y = t.forward();
  t.axis = 0;
  const auto [dx_channel, dscale_channel, dzero_point_channel] = t.backward();
  EXPECT_TRUE(same_bits(t.forward(), y));
  EXPECT_TRUE(same_bits(dx_channel, dx));
  EXPECT_TRUE(same_bits(dscale_channel, dscale));
  EXPECT_TRUE(same_bits(dzero_point_channel, dzero_point));
}

TEST(FakeQuantizeTest, SpecialValues) {
  const at::Tensor x = floats({kNan, kInf, -kInf, 0.25f, 0.75f, -0.25f, -0.0f, 1e-45f, 3e38f});
  const Case t{x, at::ones_like(x), floats({0.5f}), floats({3.0f}), 0, 15, std::nullopt};
  EXPECT_TRUE(
      same_bits(t.forward(), floats({kNan, 6.0f, -1.5f, 0.0f, 1.0f, 0.0f, 0.0f, 0.0f, 6.0f})));
  const auto [dx, dscale, dzero_point] = t.backward();
  EXPECT_TRUE(same_bits(dx, floats({0, 0, 0, 1, 1, 1, 1, 1, 0})));
  EXPECT_TRUE(std::isnan(dscale.item<float>()));
  EXPECT_EQ(dzero_point.item<float>(), 4 * -0.5f);
}

// 0.0 is exactly representable, whatever the zero point.
TEST(FakeQuantizeTest, ZeroStaysZero) {
  for (const float zero_point : {-1e9f, -3.0f, 0.4f, 2.5f, 100.7f, 255.0f, kInf}) {
    for (const float scale : {0x1p-126f, 0.1f, 3.0f, 0x1p126f}) {
      const at::Tensor y =
          fake_quantize(floats({0.0f}), floats({scale}), floats({zero_point}), 0, 255);
      EXPECT_EQ(y.item<float>(), 0.0f) << scale << ", " << zero_point;
    }
  }
}

TEST(FakeQuantizeTest, AnyNumberOfThreadsGivesTheSameBits) {
  Random random(6);
  const at::Tensor image = at::empty({6, 19, 70, 60}, at::kFloat);
  const std::vector<std::pair<at::Tensor, std::optional<int64_t>>> cases = {
      {at::empty({500001}, at::kFloat), std::nullopt},
      {image, 1},
      {image, 0},
      {image.contiguous(at::MemoryFormat::ChannelsLast), 1},
      {at::empty({70000, 7}, at::kFloat), 0}};
  for (const auto& [layout, axis] : cases) {
    const Case t = random_case(random, layout, axis);
    const Threads one(1);
    const at::Tensor y = t.forward();
    const auto [dx, dscale, dzero_point] = t.backward();
    for (const int count : {2, 3, 8}) {
      SCOPED_TRACE(::testing::Message() << count << " threads, sizes " << t.x.sizes());
      const Threads threads(count);
      EXPECT_TRUE(same_bits(t.forward(), y));
      const auto [dx_threads, dscale_threads, dzero_point_threads] = t.backward();
      EXPECT_TRUE(same_bits(dx_threads, dx));
      EXPECT_TRUE(same_bits(dscale_threads, dscale));
      EXPECT_TRUE(same_bits(dzero_point_threads, dzero_point));
    }
    check(t);
  }
}

TEST(FakeQuantizeTest, EmptyTensors) {
  const auto zeros = [](at::IntArrayRef sizes) { return at::zeros(sizes, at::kFloat); };
  const auto ones = [](int64_t n) { return at::full({n}, 1.0f, at::kFloat); };
  for (const at::Tensor& x : {zeros({0}), zeros({0, 3, 2}), zeros({4, 3, 0})}) {
    check({x, x, ones(1), zeros({1}), 0, 255, std::nullopt});
  }
  check({zeros({0, 3, 2}), zeros({0, 3, 2}), ones(3), zeros({3}), -8, 7, 1});
  check({zeros({2, 0, 2}), zeros({2, 0, 2}), ones(0), zeros({0}), -8, 7, 1});
}

TEST(FakeQuantizeTest, AutogradGivesTheBackwardOperatorsGradients) {
  Random random(7);
  for (const auto axis : {std::optional<int64_t>(), std::optional<int64_t>(1)}) {
    Case t = random_case(random, at::empty({4, 5, 6}, at::kFloat), axis);
    const auto [dx, dscale, dzero_point] = t.backward();
    const at::Tensor without_autograd = t.forward();
    for (at::Tensor* leaf : {&t.x, &t.scale, &t.zero_point}) {
      *leaf = leaf->clone().requires_grad_(true);
    }
    const at::Tensor y = t.forward();
    EXPECT_TRUE(same_bits(y.detach(), without_autograd));
    y.backward(t.grad);
    EXPECT_TRUE(same_bits(t.x.grad(), dx));
    EXPECT_TRUE(same_bits(t.scale.grad(), dscale));
    EXPECT_TRUE(same_bits(t.zero_point.grad(), dzero_point));
  }
}

TEST(FakeQuantizeTest, AutogradWhereOnlySomeInputsLearn) {
  Random random(8);
  const Case t = random_case(random, at::empty({4, 5}, at::kFloat), std::nullopt);
  EXPECT_FALSE(t.forward().requires_grad());
  Case learned_scale = t;
  learned_scale.scale = t.scale.clone().requires_grad_(true);
  learned_scale.forward().backward(t.grad);
  EXPECT_TRUE(same_bits(learned_scale.scale.grad(), std::get<1>(t.backward())));
  EXPECT_FALSE(learned_scale.x.grad().defined());
}

TEST(FakeQuantizeTest, DoubleBackwardIsAnError) {
  const at::Tensor x = floats({0.3f, -2.0f}).requires_grad_(true);
  const at::Tensor scale = floats({0.1f}).requires_grad_(true);
  const at::Tensor y = fake_quantize(x, scale, floats({0.0f}), -8, 7);
  const auto grads = torch::autograd::grad({y.mul(y).sum()}, {x, scale}, {}, std::nullopt,
                                           /*create_graph=*/true);
  EXPECT_ERROR(c10::Error, "derivative for qatx::fake_quantize_backward is not implemented",
               (grads[0].sum() + grads[1].sum()).backward());
}

TEST(FakeQuantizeTest, ErrorsNameTheArgument) {
  const at::Tensor x = at::zeros({2, 3}, at::kFloat);
  const at::Tensor one = floats({1.0f});
  const at::Tensor zero = floats({0.0f});
  const at::Tensor three = floats({1.0f, 1.0f, 1.0f});
  const at::Tensor as_double = one.to(at::kDouble);
  EXPECT_ERROR(c10::TypeError, "x must be float32, bfloat16, float16 or float64, got Int",
               fake_quantize(x.to(at::kInt), one, zero, 0, 255));
  EXPECT_ERROR(c10::TypeError, "scale must be float64 where x is, got Float",
               fake_quantize(x.to(at::kDouble), one, zero, 0, 255));
  EXPECT_ERROR(c10::ValueError, "group_size needs an axis, got axis=None",
               fake_quantize(x, one, zero, 0, 255, std::nullopt, 1.0, 2));
  EXPECT_ERROR(c10::ValueError, "group_size must be at least 1, got 0",
               fake_quantize(x, one, zero, 0, 255, 1, 1.0, 0));
  EXPECT_ERROR(c10::ValueError, "scale must have shape [2, 2], one element for each group of 2",
               fake_quantize(x, three, three, 0, 255, 1, 1.0, 2));
  EXPECT_ERROR(c10::TypeError, "seed must be int64, got Float",
               fake_quantize(x, one, zero, 0, 255, std::nullopt, 1.0, std::nullopt, false, one));
  EXPECT_ERROR(c10::TypeError, "scale must be float32, got Double",
               fake_quantize(x, as_double, zero, 0, 255));
  EXPECT_ERROR(c10::TypeError, "zero_point must be float32, got Long",
               fake_quantize(x, one, zero.to(at::kLong), 0, 255));
  EXPECT_ERROR(c10::ValueError, "scale must have one element",
               fake_quantize(x, three, zero, 0, 255));
  EXPECT_ERROR(c10::ValueError, "scale must have one element",
               fake_quantize(x, one.unsqueeze(0), zero, 0, 255));
  EXPECT_ERROR(c10::ValueError, "zero_point must have one element",
               fake_quantize(x, one, three, 0, 255));
  EXPECT_ERROR(c10::ValueError, "scale must have shape [3]",
               fake_quantize(x, one, three, 0, 255, 1));
  EXPECT_ERROR(c10::ValueError, "zero_point must have shape [3]",
               fake_quantize(x, three, zero, 0, 255, 1));
  EXPECT_ERROR(c10::ValueError, "scale must have shape [2]",
               fake_quantize(x, three, three, 0, 255, 0));
  for (const int64_t axis : {2, -3}) {
    EXPECT_ERROR(c10::ValueError, "axis must be one of the 2 dimensions of x, got",
                 fake_quantize(x, three, three, 0, 255, axis));
  }
  EXPECT_ERROR(c10::ValueError, "axis must be one of the 0 dimensions",
               fake_quantize(scalar(1.0f), one, zero, 0, 255, 0));
  const std::vector<std::pair<int64_t, int64_t>> bad_codes = {{0, 0},    {5, 3},   {-1, 128},
                                                              {-129, 0}, {0, 256}, {-128, 255}};
  for (const auto& [quant_min, quant_max] : bad_codes) {
    EXPECT_ERROR(c10::ValueError, "quant_min < quant_max must lie within",
                 fake_quantize(x, one, zero, quant_min, quant_max));
  }
  EXPECT_ERROR(c10::ValueError, "scale must be on the device of x, cpu, got meta",
               fake_quantize(x, one.to(at::kMeta), zero, 0, 255));
  for (const float bad : {0.0f, -1.0f, kNan, kInf, 1e-40f}) {
    EXPECT_ERROR(c10::ValueError, "scale[0] must be positive, finite",
                 fake_quantize(x, floats({bad}), zero, 0, 255));
    EXPECT_ERROR(c10::ValueError, "scale[0] must be positive, finite",
                 fake_quantize_backward(x, x, floats({bad}), zero, 0, 255));
  }
  EXPECT_ERROR(c10::ValueError, "zero_point[0] must be a number, got NaN",
               fake_quantize(x, one, floats({kNan}), 0, 255));
  EXPECT_ERROR(c10::ValueError, "grad must have the shape of x, [2, 3], got [3, 2]",
               fake_quantize_backward(at::zeros({3, 2}, at::kFloat), x, one, zero, 0, 255));
  EXPECT_ERROR(c10::TypeError, "grad must have the dtype of x, Float, got Double",
               fake_quantize_backward(x.to(at::kDouble), x, one, zero, 0, 255));
}

// Tracing and compiling rely on the meta kernels: they promise the sizes and strides that the CPU
// kernels give.
TEST(FakeQuantizeTest, MetaTensorsHaveTheSameLayoutAndChecks) {
  Random random(9);
  for (const at::Tensor& layout : layouts()) {
    for (const auto axis : {std::optional<int64_t>(), std::optional<int64_t>(0)}) {
      const Case t = random_case(random, layout, axis);
      Case meta = t;
      meta.x = at::empty_strided(t.x.sizes(), t.x.strides(), t.x.options().device(at::kMeta));
      meta.grad = meta.x;
      meta.scale = t.scale.to(at::kMeta);
      meta.zero_point = t.zero_point.to(at::kMeta);
      const auto expect_same_layout = [&](const at::Tensor& actual, const at::Tensor& promised) {
        EXPECT_EQ(promised.sizes(), actual.sizes());
        EXPECT_EQ(promised.strides(), actual.strides())
            << "sizes " << t.x.sizes() << ", strides of x " << t.x.strides();
      };
      expect_same_layout(t.forward(), meta.forward());
      const auto [dx, dscale, dzero_point] = t.backward();
      const auto [dx_meta, dscale_meta, dzero_point_meta] = meta.backward();
      expect_same_layout(dx, dx_meta);
      expect_same_layout(dscale, dscale_meta);
      expect_same_layout(dzero_point, dzero_point_meta);
      meta.quant_max = meta.quant_min;
      EXPECT_ERROR(c10::ValueError, "quant_min < quant_max", meta.forward());
      EXPECT_ERROR(c10::ValueError, "quant_min < quant_max", meta.backward());
    }
  }
}

}  // namespace
}  // namespace qatx
