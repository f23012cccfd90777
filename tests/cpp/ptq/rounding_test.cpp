#include <ATen/TensorOperators.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>

#include <cmath>
#include <limits>

#include "../tensor_testing.h"
#include "qatx/ptq/adaround.h"
#include "qatx/ptq/channel_scales.h"
#include "qatx/ptq/gptq.h"

namespace qatx::ptq {
namespace {

using testing::floats;
using testing::Random;

// A layer of one group with inputs that depend on each other, and what it should compute.
struct Layer {
  Layer(Random& random, int64_t outputs, int64_t inputs, int64_t rows)
      : weight(testing::random_floats(random, {1, outputs, inputs}, -1.0f, 1.0f)),
        x(testing::random_floats(random, {rows, 1, inputs, 1}, 0.0f, 1.0f)),
        y(at::zeros({rows, 1, outputs, 1})),
        error(1, outputs, inputs) {
    auto* to = y.mutable_data_ptr<float>();
    for (int64_t n = 0; n < rows; ++n) {
      for (int64_t o = 0; o < outputs; ++o) to[n * outputs + o] = output(weight, n, o);
    }
    error.add(x, y);
  }

  float output(const at::Tensor& w, int64_t n, int64_t o) const {
    const int64_t inputs = w.size(2);
    const auto* a = w.const_data_ptr<float>() + o * inputs;
    const auto* b = x.const_data_ptr<float>() + n * inputs;
    double sum = 0.0;
    for (int64_t i = 0; i < inputs; ++i) sum += double{a[i]} * double{b[i]};
    return static_cast<float>(sum);
  }

  // Row by row, as it is defined.
  double true_error(const at::Tensor& w, int64_t o) const {
    double sum = 0.0;
    for (int64_t n = 0; n < x.size(0); ++n) {
      const double e =
          double{output(w, n, o)} - double{y.const_data_ptr<float>()[n * w.size(1) + o]};
      sum += e * e;
    }
    return sum;
  }

  WeightGrid grid(float scale, int64_t quant_min, int64_t quant_max) const {
    return {at::full(weight.sizes(), scale), at::zeros(weight.sizes()), quant_min, quant_max};
  }

  at::Tensor weight;
  at::Tensor x;
  at::Tensor y;
  OutputError error;
};

at::Tensor nearest(const Layer& layer, float scale, int64_t quant_min, int64_t quant_max) {
  return (layer.weight / scale).round().clamp(quant_min, quant_max) * scale;
}

// The smallest error of an output channel over all roundings up and down of its weights.
double best_error(const Layer& layer, int64_t o, float scale, double low, double high) {
  const int64_t inputs = layer.weight.size(2);
  const at::Tensor w = layer.weight.clone();
  auto* to = w.mutable_data_ptr<float>() + o * inputs;
  const auto* from = layer.weight.const_data_ptr<float>() + o * inputs;
  double best = std::numeric_limits<double>::infinity();
  for (int64_t roundings = 0; roundings < int64_t{1} << inputs; ++roundings) {
    for (int64_t i = 0; i < inputs; ++i) {
      const double step = std::floor(from[i] / scale) + static_cast<double>(roundings >> i & 1);
      to[i] = static_cast<float>(std::clamp(step, low, high)) * scale;
    }
    best = std::min(best, layer.true_error(w, o));
  }
  return best;
}

TEST(OutputError, IsThatOfTheRows) {
  Random random(1);
  const Layer layer(random, 3, 7, 20);
  const at::Tensor w = testing::random_floats(random, {1, 3, 7}, -1.0f, 1.0f);
  const at::Tensor errors = layer.error(w);
  for (int64_t o = 0; o < 3; ++o) {
    EXPECT_NEAR(errors[0][o].item<double>(), layer.true_error(w, o), 1e-5);
  }
  EXPECT_EQ(layer.error.rows(), 20);
}

TEST(OutputError, SamplesMayComeInParts) {
  Random random(2);
  const Layer layer(random, 2, 5, 12);
  OutputError parts(1, 2, 5);
  parts.add(layer.x.narrow(0, 0, 5), layer.y.narrow(0, 0, 5));
  parts.add(layer.x.narrow(0, 5, 7), layer.y.narrow(0, 5, 7));
  EXPECT_LT((parts.gram() - layer.error.gram()).abs().max().item<double>(), 1e-12);
  EXPECT_LT((parts.cross() - layer.error.cross()).abs().max().item<double>(), 1e-12);
  EXPECT_EQ(parts.rows(), 12);
}

TEST(OutputError, NamesAWrongShape) {
  OutputError error(1, 2, 5);
  EXPECT_ERROR(c10::ValueError, "x must have the shape [N, 1, 5, rows], got [3, 5]",
               error.add(at::zeros({3, 5}), at::zeros({3, 1, 2, 1})));
  EXPECT_ERROR(c10::ValueError, "y must have the shape [3, 1, 2, 4], got [3, 1, 2, 1]",
               error.add(at::zeros({3, 1, 5, 4}), at::zeros({3, 1, 2, 1})));
  EXPECT_ERROR(c10::ValueError, "weight must have the shape", error(at::zeros({1, 2, 4})));
  EXPECT_ERROR(c10::ValueError, "must be at least 1", OutputError(1, 0, 5));
}

// The methods do not look at all roundings; what they find must lie close to the best, and for each
// layer be no worse than rounding to nearest.
TEST(Rounding, IsCloseToTheBestOfAllRoundings) {
  Random random(3);
  double sum_nearest = 0.0, sum_best = 0.0, sum_adaround = 0.0, sum_gptq = 0.0;
  for (int repeat = 0; repeat < 6; ++repeat) {
    const Layer layer(random, 4, 10, 40);
    const float scale = 0.15f;
    const WeightGrid grid = layer.grid(scale, -8, 7);
    const at::Tensor rounded = nearest(layer, scale, -8, 7);
    const at::Tensor learned = adaround(layer.error, layer.weight, grid, {.dampening = 1e-4});
    const at::Tensor solved = gptq(layer.error, layer.weight, grid, {.dampening = 1e-4});
    for (int64_t o = 0; o < 4; ++o) {
      const double best = best_error(layer, o, scale, -8, 7);
      const double up_or_down = layer.true_error(learned, o);
      EXPECT_LE(best, up_or_down * (1 + 1e-4));  // it rounds up or down only
      EXPECT_LE(up_or_down, layer.true_error(rounded, o) * (1 + 1e-4));
      EXPECT_LE(layer.true_error(solved, o), layer.true_error(rounded, o) * (1 + 1e-4));
      sum_nearest += layer.true_error(rounded, o);
      sum_best += best;
      sum_adaround += up_or_down;
      sum_gptq += layer.true_error(solved, o);
    }
  }
  EXPECT_LT(sum_adaround, 0.2 * sum_nearest + 0.8 * sum_best);
  EXPECT_LT(sum_gptq, 0.4 * sum_nearest + 0.6 * sum_best);
}

TEST(Rounding, IsOnTheGrid) {
  Random random(4);
  const Layer layer(random, 3, 9, 30);
  for (const int64_t bits : {2, 3, 4, 8}) {
    const int64_t high = (int64_t{1} << bits) - 1;
    const float scale = 2.0f / static_cast<float>(high);
    WeightGrid grid = layer.grid(scale, 0, high);
    grid.zero_point.fill_(static_cast<float>(high / 2));
    for (const at::Tensor& w : {adaround(layer.error, layer.weight, grid, {.iterations = 50}),
                                gptq(layer.error, layer.weight, grid)}) {
      const at::Tensor codes = w / scale + static_cast<double>(high / 2);
      EXPECT_LT((codes - codes.round()).abs().max().item<float>(), 1e-3f);
      EXPECT_GE(codes.min().item<float>(), -1e-3f);
      EXPECT_LE(codes.max().item<float>(), static_cast<float>(high) + 1e-3f);
    }
  }
}

TEST(Gptq, BlocksMakeNoDifference) {
  Random random(5);
  const Layer layer(random, 5, 33, 100);
  const WeightGrid grid = layer.grid(0.2f, -4, 3);
  for (const bool order : {false, true}) {
    const at::Tensor whole =
        gptq(layer.error, layer.weight, grid, {.block_size = 128, .activation_order = order});
    for (const int64_t block : {1, 7, 32}) {
      EXPECT_TRUE(testing::same_bits(
          gptq(layer.error, layer.weight, grid, {.block_size = block, .activation_order = order}),
          whole));
    }
  }
}

// Inputs that are always 0, or fewer rows than inputs.
TEST(Rounding, TakesInputsThatSayNothing) {
  Random random(6);
  Layer layer(random, 2, 8, 3);
  layer.x.select(2, 4).zero_();
  OutputError error(1, 2, 8);
  error.add(layer.x, layer.y);
  const WeightGrid grid = layer.grid(0.2f, -8, 7);
  const at::Tensor rounded = nearest(layer, 0.2f, -8, 7);
  for (const at::Tensor& w :
       {adaround(error, layer.weight, grid), gptq(error, layer.weight, grid)}) {
    EXPECT_LE(error(w).sum().item<double>(), error(rounded).sum().item<double>());
  }
}

TEST(Rounding, SaysWhatIsWrong) {
  Random random(7);
  Layer layer(random, 2, 4, 10);
  const WeightGrid grid = layer.grid(0.2f, -8, 7);
  const auto round = [&](const GptqOptions& options) {
    return gptq(layer.error, layer.weight, grid, options);
  };
  EXPECT_ERROR(c10::ValueError, "dampening must be finite and at least 0, got -1",
               round({.dampening = -1.0}));
  EXPECT_ERROR(c10::ValueError, "block_size must be at least 1, got 0", round({.block_size = 0}));
  EXPECT_ERROR(c10::ValueError, "iterations must be at least 1, got 0",
               adaround(layer.error, layer.weight, grid, {.iterations = 0}));
  EXPECT_ERROR(c10::ValueError, "warm_up must be from 0 to below 1, got 1",
               adaround(layer.error, layer.weight, grid, {.warm_up = 1.0}));
  EXPECT_ERROR(c10::ValueError, "scale must be float32 of the shape [1, 2, 4]",
               gptq(layer.error, layer.weight, {at::zeros({2}), grid.zero_point, -8, 7}));
  EXPECT_ERROR(c10::ValueError, "has seen no data", gptq(OutputError(1, 2, 4), layer.weight, grid));
  OutputError same(1, 2, 4);
  same.add(at::full({5, 1, 4, 1}, 1.0f), at::zeros({5, 1, 2, 1}));
  EXPECT_ERROR(c10::ValueError, "use more samples or a larger dampening, got 0",
               gptq(same, layer.weight, grid, {.dampening = 0.0}));
  layer.x.fill_(std::numeric_limits<float>::quiet_NaN());
  layer.error.add(layer.x, layer.y);
  EXPECT_ERROR(c10::ValueError, "hold NaN or infinities",
               adaround(layer.error, layer.weight, grid));
}

TEST(ChannelScales, EqualizeAndMigrate) {
  const at::Tensor made = floats({4.0f, 1.0f, 0.0f, 3.0f});
  const at::Tensor read = floats({1.0f, 16.0f, 2.0f, 0.0f});
  EXPECT_TRUE(testing::same_bits(equalization_scales(made, read).to(at::kFloat),
                                 floats({2.0f, 0.25f, 1.0f, 1.0f})));
  EXPECT_TRUE(testing::same_bits(migration_scales(made, read, 0.5).to(at::kFloat),
                                 floats({2.0f, 0.25f, 1.0f, 1.0f})));
  EXPECT_TRUE(testing::same_bits(migration_scales(made, read, 1.0).to(at::kFloat),
                                 floats({4.0f, 1.0f, 1.0f, 1.0f})));
  EXPECT_ERROR(c10::ValueError, "alpha must be from 0 to 1, got 1.5",
               migration_scales(made, read, 1.5));
  EXPECT_ERROR(c10::ValueError,
               "made must have one dimension and the size of the other magnitudes, got [4]",
               equalization_scales(made, read.reshape({2, 2})));
}

}  // namespace
}  // namespace qatx::ptq
