#pragma once

#include <ATen/TensorOperators.h>
#include <ATen/ops/_upsample_nearest_exact2d.h>
#include <ATen/ops/adaptive_avg_pool2d.h>
#include <ATen/ops/amax.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/avg_pool2d.h>
#include <ATen/ops/avg_pool3d.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/chunk.h>
#include <ATen/ops/clamp.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/conv2d.h>
#include <ATen/ops/conv3d.h>
#include <ATen/ops/conv_transpose2d.h>
#include <ATen/ops/conv_transpose3d.h>
#include <ATen/ops/exp2.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/isnan.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/max_pool2d.h>
#include <ATen/ops/max_pool3d.h>
#include <ATen/ops/nan_to_num.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/pad.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/round.h>
#include <ATen/ops/sqrt.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/sum.h>
#include <ATen/ops/upsample_nearest2d.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <sstream>

#include "graph_testing.h"
#include "qatx/engine/program.h"

namespace qatx::engine {

// A network of random parameters and inputs that is built as a graph and, at the same time,
// computed by an oracle: sums of integers in double by PyTorch's own operators, which is exact, and
// then the float operations of the numeric contract, one by one.
class Network {
 public:
  using Sizes = std::vector<int64_t>;

  struct Tensor {
    int64_t value;             // in the graph
    at::Tensor expected;       // float32; of codes what they stand for
    std::optional<QParams> q;  // of codes

    // Of codes, less the zero point: whole numbers, in double.
    at::Tensor steps() const { return at::round(expected.to(at::kDouble) / double{q->scale}); }
  };

  explicit Network(unsigned seed) : random(seed) {}

  testing::Random random;

  QParams random_qparams(double scale) {
    constexpr int64_t kRanges[][2] = {{0, 255}, {0, 255}, {0, 15}, {120, 135}, {1, 255}, {64, 191}};
    const auto& [low, high] = kRanges[random.integer(0, 5)];
    return make_qparams(scale, random.integer(low, high), low, high);
  }

  // A float32 input of any layout, with infinities, NaN and ties between codes; and its codes.
  Tensor input(const Sizes& sizes) {
    return input(sizes, random_qparams(random.real(0.005f, 0.1f)));
  }

  Tensor input(const Sizes& sizes, const QParams& q) {
    at::Tensor x = at::empty(sizes, at::kFloat);
    auto* data = x.mutable_data_ptr<float>();
    for (int64_t i = 0; i < x.numel(); ++i) data[i] = random_value(q);
    inputs_.push_back(in_some_layout(x));
    return quantize(add_input(graph_), x, q);
  }

  // Codes of what is already computed, under new parameters.
  Tensor requantize(const Tensor& x) {
    const int64_t value = x.q ? dequantize(graph_, x.value) : x.value;
    return quantize(value, x.expected, random_qparams(suitable_scale(x.expected)));
  }

  struct Conv2dOptions {
    int64_t out_channels;
    Sizes kernel;
    Sizes stride = {1, 1};
    Sizes dilation = {1, 1};
    Sizes padding = {0, 0, 0, 0};  // top, left, bottom, right
    int64_t groups = 1;
  };

  at::Tensor conv2d_sums(const Tensor& x, const Conv2dOptions& o, const at::Tensor& weight) const {
    const at::Tensor padded =
        at::constant_pad_nd(x.steps(), {o.padding[1], o.padding[3], o.padding[0], o.padding[2]});
    return at::conv2d(padded, weight.to(at::kDouble), {}, o.stride, at::IntArrayRef({0, 0}),
                      o.dilation, o.groups);
  }

  // with_residual: adds random codes of the output's shape.
  Tensor conv2d(const Tensor& x, const Conv2dOptions& o, bool with_residual) {
    const at::Tensor weight =
        random_weight({o.out_channels, x.expected.size(1) / o.groups, o.kernel[0], o.kernel[1]});
    Node node{.op = "conv2d",
              .inputs = {x.value},
              .ints = {{"stride", o.stride},
                       {"dilation", o.dilation},
                       {"padding", o.padding},
                       {"groups", {o.groups}}}};
    return layer(std::move(node), x, weight, conv2d_sums(x, o, weight), {1, -1, 1, 1},
                 with_residual);
  }

  struct Conv3dOptions {
    int64_t out_channels;
    Sizes kernel;
    Sizes stride = {1, 1, 1};
    Sizes dilation = {1, 1, 1};
    Sizes padding = {0, 0, 0, 0, 0, 0};  // front, top, left, back, bottom, right
    int64_t groups = 1;
  };

  Tensor conv3d(const Tensor& x, const Conv3dOptions& o, bool with_residual) {
    const at::Tensor weight = random_weight(
        {o.out_channels, x.expected.size(1) / o.groups, o.kernel[0], o.kernel[1], o.kernel[2]});
    const Sizes& p = o.padding;
    const at::Tensor padded = at::constant_pad_nd(x.steps(), {p[2], p[5], p[1], p[4], p[0], p[3]});
    const at::Tensor sums = at::conv3d(padded, weight.to(at::kDouble), {}, o.stride,
                                       at::IntArrayRef({0, 0, 0}), o.dilation, o.groups);
    Node node{.op = "conv3d",
              .inputs = {x.value},
              .ints = {{"stride", o.stride},
                       {"dilation", o.dilation},
                       {"padding", o.padding},
                       {"groups", {o.groups}}}};
    return layer(std::move(node), x, weight, at::round(sums), {1, -1, 1, 1, 1}, with_residual);
  }

  // By dimension: two of an image, three of a volume.
  struct ConvTransposeOptions {
    int64_t out_channels;
    Sizes kernel;
    Sizes stride;
    Sizes dilation;
    Sizes padding;
    Sizes output_padding;
    int64_t groups = 1;
  };

  Tensor conv_transpose(const Tensor& x, const ConvTransposeOptions& o) {
    const bool is_volume = o.kernel.size() == 3;
    Sizes sizes{o.out_channels, x.expected.size(1) / o.groups};
    sizes.insert(sizes.end(), o.kernel.begin(), o.kernel.end());
    const at::Tensor weight = random_weight(sizes);
    Node node{.op = is_volume ? "conv_transpose3d" : "conv_transpose2d",
              .inputs = {x.value},
              .ints = {{"stride", o.stride},
                       {"dilation", o.dilation},
                       {"padding", o.padding},
                       {"output_padding", o.output_padding},
                       {"groups", {o.groups}}}};
    const at::Tensor by_group = weight.to(at::kDouble).unflatten(0, {o.groups, -1});
    const at::Tensor taken = by_group.transpose(1, 2).flatten(0, 1);
    const at::Tensor sums = is_volume
                                ? at::conv_transpose3d(x.steps(), taken, {}, o.stride, o.padding,
                                                       o.output_padding, o.groups, o.dilation)
                                : at::conv_transpose2d(x.steps(), taken, {}, o.stride, o.padding,
                                                       o.output_padding, o.groups, o.dilation);
    Sizes view(o.kernel.size() + 2, 1);
    view[1] = -1;
    return layer(std::move(node), x, weight, at::round(sums), view, false);
  }

  // Keeps the dimensions.
  Tensor mean(const Tensor& x, const Sizes& dims) {
    const at::Tensor sums = at::sum(x.steps(), dims, true);
    const auto count = static_cast<double>(x.expected.numel() / sums.numel());
    return average({.op = "mean", .inputs = {x.value}, .ints = {{"dims", dims}}}, x, sums,
                   at::full_like(sums, count));
  }

  Tensor linear(const Tensor& x, int64_t out_features, bool with_residual) {
    const at::Tensor weight = random_weight({out_features, x.expected.size(-1)});
    return layer({.op = "linear", .inputs = {x.value}}, x, weight,
                 at::linear(x.steps(), weight.to(at::kDouble)), {-1}, with_residual);
  }

  // Rows along the last dimension, or the channels of an image.
  Tensor dynamic_linear(const Tensor& x, int64_t out_features) {
    const DynamicRows rows(x, random.integer(1, 127));
    const at::Tensor weight = random_weight({out_features, rows.codes.size(-1)});
    const at::Tensor weight_scale = random_floats(random, {out_features}, 0.001f, 0.02f);
    const at::Tensor bias = random_floats(random, {out_features}, -3.0f, 3.0f);
    const at::Tensor sums =
        at::linear(rows.codes.to(at::kDouble), weight.to(at::kDouble)).to(at::kFloat);
    const at::Tensor product = sums * weight_scale;
    const at::Tensor scaled = product * rows.scale;
    Node node{.op = "dynamic_linear",
              .inputs = {x.value},
              .ints = {{"quant_max", {rows.quant_max}}},
              .tensors = {{"weight", weight}, {"weight_scale", weight_scale}, {"bias", bias}}};
    return finish(std::move(node), rows.as_x(scaled + bias));
  }

  Tensor dynamic_fake_quantize(const Tensor& x) {
    const DynamicRows rows(x, random.integer(1, 127));
    Node node{.op = "dynamic_fake_quantize",
              .inputs = {x.value},
              .ints = {{"quant_max", {rows.quant_max}}}};
    return {add_node(graph_, std::move(node)), rows.as_x(rows.codes * rows.scale), std::nullopt};
  }

  Tensor add(const Tensor& a, const Tensor& b) {
    return finish({.op = "add", .inputs = {a.value, b.value}}, a.expected + b.expected);
  }

  Tensor sub(const Tensor& a, const Tensor& b) {
    return finish({.op = "sub", .inputs = {a.value, b.value}}, a.expected - b.expected);
  }

  // [B, M, K] and [B, N, K].
  Tensor matmul(const Tensor& a, const Tensor& b) {
    const at::Tensor sums = at::bmm(a.steps(), b.steps().transpose(1, 2));
    const float scale = a.q->scale * b.q->scale;
    return finish({.op = "matmul", .inputs = {a.value, b.value}}, sums.to(at::kFloat) * scale);
  }

  // Codes that can be the second factor of a product.
  Tensor symmetric_input(const Sizes& sizes) {
    constexpr int64_t kRanges[][3] = {{128, 0, 255}, {127, 0, 254}, {3, 0, 15}, {200, 72, 255}};
    const auto& [zero_point, low, high] = kRanges[random.integer(0, 3)];
    return input(sizes, make_qparams(random.real(0.005f, 0.1f), zero_point, low, high));
  }

  // Scaled and masked, with softmax behind it or without. x: codes, or float32 of three dimensions.
  Tensor scores(const Tensor& x, bool softmax, const Sizes& mask_sizes) {
    Node node{.op = softmax ? "softmax" : "affine", .inputs = {x.value}};
    at::Tensor t = x.expected;
    if (random.chance(0.6)) {
      const float scale = random.real(0.1f, 5.0f);
      const bool divide = random.chance(0.5);
      node.floats["scale"] = {double{scale}};
      node.ints["divide"] = {divide};
      t = divide ? t / scale : t * scale;
    }
    if (!mask_sizes.empty()) {
      const at::Tensor numbers = random_floats(random, mask_sizes, -2.0f, 2.0f);
      at::Tensor mask = at::where(numbers < -1.0f, at::full_like(numbers, -1e4), numbers);
      const bool replaces = random.chance(0.4);
      const bool keep = random.chance(0.5);
      if (replaces) {
        mask = numbers < -1.0f;
        node.floats["fill"] = {random.chance(0.5) ? -1e4 : -3.0};
        if (keep) node.ints["keep"] = {1};
      }
      inputs_.push_back(in_some_layout(mask));
      node.inputs.push_back(add_input(graph_));
      if (replaces) graph_.values.back().dtype = at::kBool;
      if (mask.dim() == 4) {  // [samples, heads, ...]
        const int64_t samples = mask.size(0);
        const int64_t heads = mask.size(1) > 1 ? mask.size(1) : t.size(0) / samples;
        mask = mask.expand({t.size(0) / heads, heads, mask.size(2), mask.size(3)}).flatten(0, 1);
      } else if (mask.dim() == 3 && mask.size(0) > 1) {
        mask = mask.repeat({t.size(0) / mask.size(0), 1, 1});
      }
      if (replaces) {
        const at::Tensor fill = at::full_like(t, node.floats["fill"][0]);
        t = keep ? at::where(mask, t, fill) : at::where(mask, fill, t);
      } else {
        t = t + mask;
      }
    }
    return finish(std::move(node), softmax ? expected_softmax(t) : t);
  }

  Tensor layer_norm(const Tensor& x) {
    const bool is_image = x.expected.dim() == 4;
    const at::Tensor t = is_image ? x.expected.permute({0, 2, 3, 1}) : x.expected;
    const int64_t n = t.size(-1);
    const at::Tensor weight = random_floats(random, {n}, -2.0f, 2.0f);
    const at::Tensor bias = random_floats(random, {n}, -1.0f, 1.0f);
    const double eps = random.chance(0.5) ? 1e-5 : 1e-12;
    const at::Tensor d = t - lane_sum(t) / static_cast<float>(n);
    const at::Tensor variance = lane_sum(d * d) / static_cast<float>(n) + static_cast<float>(eps);
    // PyTorch's own square root of float32 is not rounded correctly.
    const at::Tensor factor =
        at::ones_like(variance) / at::sqrt(variance.to(at::kDouble)).to(at::kFloat);
    const at::Tensor normal = d * factor;
    const at::Tensor scaled = normal * weight;
    const at::Tensor y = scaled + bias;
    Node node{.op = "layer_norm",
              .inputs = {x.value},
              .floats = {{"eps", {eps}}},
              .tensors = {{"weight", weight}, {"bias", bias}}};
    return finish(std::move(node), is_image ? y.permute({0, 3, 1, 2}) : y);
  }

  // Random float32 values that a program makes: products.
  Tensor float_scores(int64_t batches, int64_t rows, int64_t columns) {
    const int64_t k = random.integer(1, 40);
    const Tensor a = input({batches, rows, k});
    const Tensor b = symmetric_input({batches, columns, k});
    const at::Tensor sums = at::bmm(a.steps(), b.steps().transpose(1, 2));
    const float scale = a.q->scale * b.q->scale;
    return {add_node(graph_, {.op = "matmul", .inputs = {a.value, b.value}}),
            sums.to(at::kFloat) * scale, std::nullopt};
  }

  Tensor mul(const Tensor& a, const Tensor& b) {
    return finish({.op = "mul", .inputs = {a.value, b.value}}, a.expected * b.expected);
  }

  Tensor div(const Tensor& a, const Tensor& b) {
    return finish({.op = "div", .inputs = {a.value, b.value}}, a.expected / b.expected);
  }

  // Keeps the dimensions.
  Tensor amax(const Tensor& x, const Sizes& dims) {
    Node node{.op = "amax", .inputs = {x.value}, .ints = {{"dims", dims}}};
    return {add_node(graph_, std::move(node), x.q), at::amax(x.expected, dims, true), x.q};
  }

  // A function of one value that is random, with some NaN and infinities; another one for each
  // index along an axis, where there is one.
  Tensor table(const Tensor& x, std::optional<int64_t> axis = std::nullopt) {
    const int64_t count = axis ? x.expected.size(*axis) : 1;
    at::Tensor values = random_floats(random, {count, 256}, -2.0f, 2.0f);
    constexpr float kInf = std::numeric_limits<float>::infinity();
    for (const float special : {kInf, -kInf, std::numeric_limits<float>::quiet_NaN()}) {
      if (random.chance(0.5)) values[0][random.integer(0, 255)] = special;
    }
    Node node{.op = "table",
              .inputs = {x.value},
              .tensors = {{"values", axis ? values : values.squeeze(0)}}};
    if (axis) node.ints = {{"axis", {*axis}}};
    const at::Tensor codes = (x.steps() + x.q->zero_point).to(at::kLong);
    Sizes along(static_cast<size_t>(codes.dim()), 1);
    if (axis) along[static_cast<size_t>(*axis)] = count;
    const at::Tensor index = at::arange(count).view(along).expand_as(codes);
    return finish(std::move(node), values.index({index, codes}));
  }

  // Windows of volumes, all settings by dimension; padding is the same on both sides.
  Tensor max_pool3d(const Tensor& x, const Sizes& kernel, const Sizes& stride, const Sizes& padding,
                    const Sizes& dilation, bool ceil_mode) {
    Sizes both = padding;
    both.insert(both.end(), padding.begin(), padding.end());
    Node node{.op = "max_pool3d",
              .ints = {{"kernel", kernel},
                       {"stride", stride},
                       {"dilation", dilation},
                       {"padding", both},
                       {"ceil_mode", {ceil_mode}}}};
    return keep(std::move(node), x,
                at::max_pool3d(x.expected, kernel, stride, padding, dilation, ceil_mode));
  }

  Tensor avg_pool3d(const Tensor& x, const Sizes& kernel, const Sizes& stride, const Sizes& padding,
                    bool ceil_mode, bool count_include_pad) {
    Sizes both = padding;
    both.insert(both.end(), padding.begin(), padding.end());
    Node node{.op = "avg_pool3d",
              .inputs = {x.value},
              .ints = {{"kernel", kernel},
                       {"stride", stride},
                       {"dilation", {1, 1, 1}},
                       {"padding", both},
                       {"ceil_mode", {ceil_mode}},
                       {"count_include_pad", {count_include_pad}},
                       {"divisor_override", {0}}}};
    const auto pool = [&](const at::Tensor& t, std::optional<int64_t> by) {
      return at::avg_pool3d(t, kernel, stride, padding, ceil_mode, count_include_pad, by);
    };
    const at::Tensor ones = at::ones_like(x.steps());
    const at::Tensor divisors = at::round(pool(ones, 1) / pool(ones, std::nullopt));
    return average(std::move(node), x, at::round(pool(x.steps(), 1)), divisors);
  }

  Tensor adaptive_avg_pool3d(const Tensor& x, const Sizes& size) {
    const at::Tensor steps = x.steps();
    at::Tensor sums =
        at::zeros({steps.size(0), steps.size(1), size[0], size[1], size[2]}, at::kDouble);
    at::Tensor divisors = at::zeros({1, 1, size[0], size[1], size[2]}, at::kDouble);
    const auto begin = [&](size_t d, int64_t o) {
      return o * steps.size(static_cast<int64_t>(d) + 2) / size[d];
    };
    const auto end = [&](size_t d, int64_t o) {
      const int64_t n = steps.size(static_cast<int64_t>(d) + 2);
      return ((o + 1) * n + size[d] - 1) / size[d];
    };
    for (int64_t a = 0; a < size[0]; ++a) {
      for (int64_t b = 0; b < size[1]; ++b) {
        for (int64_t c = 0; c < size[2]; ++c) {
          const at::Tensor part = steps.slice(2, begin(0, a), end(0, a))
                                      .slice(3, begin(1, b), end(1, b))
                                      .slice(4, begin(2, c), end(2, c));
          sums.select(2, a).select(2, b).select(2, c).copy_(part.sum(at::IntArrayRef({2, 3, 4})));
          divisors[0][0][a][b][c] = part.size(2) * part.size(3) * part.size(4);
        }
      }
    }
    return average({.op = "avg_pool3d", .inputs = {x.value}, .ints = {{"adaptive", size}}}, x, sums,
                   divisors);
  }

  // bags: 0 none, 1 sum, 2 mean.
  Tensor embedding(const Sizes& sizes, int64_t rows, int64_t width, int64_t bags) {
    const at::Tensor codes = at::randint(256, {rows, width}, at::kLong);
    const at::Tensor scale = random_floats(random, {rows}, 0.001f, 0.1f);
    const at::Tensor table = (codes - 128).to(at::kFloat) * scale.unsqueeze(1);
    const auto add = [&](const at::Tensor& numbers) {
      inputs_.push_back(in_some_layout(numbers));
      const int64_t value = add_input(graph_);
      graph_.values.back().dtype = at::kLong;
      return value;
    };
    const at::Tensor indices = at::randint(rows, sizes, at::kLong);
    Node node{.op = "embedding",
              .inputs = {add(indices)},
              .ints = {{"bags", {bags}}},
              .tensors = {{"weight", codes.to(at::kByte)}, {"weight_scale", scale}}};
    if (bags == 0) return finish(std::move(node), table.index({indices}));
    const int64_t count = random.integer(1, 4);
    at::Tensor offsets = std::get<0>(at::randint(sizes[0] + 1, {count}, at::kLong).sort());
    node.inputs.push_back(add(offsets));
    at::Tensor y = at::zeros({count, width}, at::kFloat);
    for (int64_t bag = 0; bag < count; ++bag) {
      const auto first = offsets[bag].item<int64_t>();
      const int64_t last = bag + 1 < count ? offsets[bag + 1].item<int64_t>() : sizes[0];
      at::Tensor sum = at::zeros({width}, at::kFloat);
      for (int64_t i = first; i < last; ++i) sum = sum + table[indices[i].item<int64_t>()];
      if (bags == 2 && last > first) sum = sum / static_cast<float>(last - first);
      y[bag] = sum;
    }
    return finish(std::move(node), y);
  }

  struct PoolOptions {
    Sizes kernel;
    Sizes stride;
    Sizes padding;  // vertical, horizontal
    bool ceil_mode = false;
  };

  // What both window poolings say.
  Node pool_node(const char* op, const Tensor& x, const PoolOptions& o,
                 const Sizes& dilation) const {
    return {.op = op,
            .inputs = {x.value},
            .ints = {{"kernel", o.kernel},
                     {"stride", o.stride},
                     {"dilation", dilation},
                     {"padding", {o.padding[0], o.padding[1], o.padding[0], o.padding[1]}},
                     {"ceil_mode", {o.ceil_mode}}}};
  }

  Tensor max_pool2d(const Tensor& x, const PoolOptions& o, const Sizes& dilation) {
    const int64_t value = add_node(graph_, pool_node("max_pool2d", x, o, dilation), x.q);
    return {value, at::max_pool2d(x.expected, o.kernel, o.stride, o.padding, dilation, o.ceil_mode),
            x.q};
  }

  Tensor avg_pool2d(const Tensor& x, const PoolOptions& o, bool count_include_pad,
                    int64_t divisor) {
    Node node = pool_node("avg_pool2d", x, o, {1, 1});
    node.ints["count_include_pad"] = {count_include_pad};
    node.ints["divisor_override"] = {divisor};
    const auto pool = [&](const at::Tensor& t, std::optional<int64_t> by) {
      return at::avg_pool2d(t, o.kernel, o.stride, o.padding, o.ceil_mode, count_include_pad, by);
    };
    // PyTorch's divisors: how many elements a window has over their share in the average of ones.
    const at::Tensor ones = at::ones_like(x.steps());
    const at::Tensor divisors =
        divisor > 0 ? at::full_like(pool(ones, divisor), static_cast<double>(divisor))
                    : at::round(pool(ones, 1) / pool(ones, std::nullopt));
    return average(std::move(node), x, pool(x.steps(), 1), divisors);
  }

  // squeeze: drops both spatial dimensions, which must be 1.
  Tensor adaptive_avg_pool2d(const Tensor& x, const Sizes& size, bool squeeze) {
    Node node{.op = "avg_pool2d", .inputs = {x.value}, .ints = {{"adaptive", size}}};
    if (squeeze) node.ints["squeeze"] = {1};
    const at::Tensor steps = x.steps();
    const Sizes in = {steps.size(2), steps.size(3)};
    at::Tensor divisors = at::empty({1, 1, size[0], size[1]}, at::kDouble);
    const auto length = [&](size_t d, int64_t o) {
      const double step = static_cast<double>(in[d]) / static_cast<double>(size[d]);
      return std::ceil(static_cast<double>(o + 1) * step - 1e-9) -
             std::floor(static_cast<double>(o) * step + 1e-9);
    };
    for (int64_t h = 0; h < size[0]; ++h) {
      for (int64_t w = 0; w < size[1]; ++w) divisors[0][0][h][w] = length(0, h) * length(1, w);
    }
    at::Tensor sums = at::round(at::adaptive_avg_pool2d(steps, size) * divisors);
    if (squeeze) {
      sums = sums.flatten(1);
      divisors = divisors.flatten();
    }
    return average(std::move(node), x, sums, divisors);
  }

  Tensor reshape(const Tensor& x, const Sizes& sizes) {
    return keep(reshape_node(sizes), x, x.expected.contiguous().reshape(sizes));
  }

  // All but the first dimension.
  Tensor flatten(const Tensor& x) {
    return keep(reshape_node({-2, -1}), x, x.expected.contiguous().flatten(1));
  }

  // Random steps.
  Tensor moves(const Tensor& x) {
    Node node{.op = "move"};
    Sizes& steps = node.ints["steps"];
    at::Tensor y = x.expected.contiguous();
    for (int64_t count = random.integer(0, 4); count > 0; --count) {
      const int64_t dim = random.integer(0, y.dim() - 1);
      switch (random.integer(0, 3)) {
        case 0: {  // to other sizes, a common divisor of all goes elsewhere
          Sizes sizes = y.sizes().vec();
          for (size_t d = 0; d < sizes.size(); ++d) {
            if (random.chance(0.5)) sizes[d] = -2 - static_cast<int64_t>(d);
          }
          sizes[static_cast<size_t>(dim)] = -1;
          if (y.size(dim) % 2 == 0 && sizes.size() < 7) sizes.insert(sizes.begin(), 2);
          Sizes meant = sizes;
          for (int64_t& size : meant) size = size < -1 ? y.size(-2 - size) : size;
          add_move(steps, MoveKind::reshape, sizes);
          y = y.reshape(meant);
          break;
        }
        case 1: {
          Sizes order;
          for (int64_t d = 0; d < y.dim(); ++d) {
            order.insert(order.begin() + random.integer(0, d), d);
          }
          add_move(steps, MoveKind::permute, order);
          y = y.permute(order);
          break;
        }
        case 2: {
          const int64_t last = random.integer(dim, y.dim() - 1);
          add_move(steps, MoveKind::merge, {dim, last});
          y = y.flatten(dim, last);
          break;
        }
        default: {
          const int64_t part = y.size(dim) % 3 == 0 ? 3 : y.size(dim) % 2 == 0 ? 2 : 1;
          if (y.dim() > 6) break;
          add_move(steps, MoveKind::split, {dim, part});
          y = y.unflatten(dim, {y.size(dim) / part, part});
        }
      }
    }
    return keep(std::move(node), x, y.contiguous());
  }

  Tensor slice(const Tensor& x, int64_t dim, int64_t start, int64_t end, int64_t step) {
    return keep({.op = "slice", .ints = {{"range", {dim, start, end, step}}}}, x,
                x.expected.slice(dim, start, end, step));
  }

  Tensor chunk(const Tensor& x, int64_t dim, int64_t index, int64_t count) {
    return keep({.op = "slice", .ints = {{"chunk", {dim, index, count}}}}, x,
                at::chunk(x.expected, count, dim).at(static_cast<size_t>(index)));
  }

  Tensor pad(const Tensor& x, const Sizes& pads, int64_t mode) {
    constexpr const char* kModes[] = {"constant", "reflect", "replicate", "circular"};
    return keep({.op = "pad", .ints = {{"pads", pads}, {"mode", {mode}}}}, x,
                at::pad(x.expected, pads, kModes[mode]));
  }

  Tensor upsample_nearest(const Tensor& x, const Sizes& size, const std::vector<double>& scale,
                          bool exact) {
    const at::OptionalIntArrayRef sizes = size.empty() ? at::OptionalIntArrayRef() : size;
    const std::optional<at::ArrayRef<double>> scales =
        scale.empty() ? std::nullopt : std::optional<at::ArrayRef<double>>(scale);
    return keep(upsample("upsample_nearest", size, scale, "exact", exact), x,
                exact ? at::_upsample_nearest_exact2d(x.expected, sizes, scales)
                      : at::upsample_nearest2d(x.expected, sizes, scales));
  }

  Tensor upsample_bilinear(const Tensor& x, const Sizes& size, const std::vector<double>& scale,
                           bool align) {
    Node node = upsample("upsample_bilinear", size, scale, "align_corners", align);
    const at::Tensor steps = x.steps().to(at::kFloat);
    struct Axis {
      std::vector<int64_t> first, second;
      at::Tensor weight;
    };
    const auto axis = [&](size_t d) {
      const int64_t n = steps.size(static_cast<int64_t>(d) + 2);
      const int64_t out =
          size.empty() ? static_cast<int64_t>(static_cast<double>(n) * scale[d]) : size[d];
      const float step = align          ? (out > 1 ? float(n - 1) / float(out - 1) : 0.0f)
                         : size.empty() ? float(1.0 / scale[d])
                                        : float(n) / float(out);
      Axis result{{}, {}, at::empty({out}, at::kFloat)};
      for (int64_t i = 0; i < out; ++i) {
        float place = align ? step * float(i) : step * (float(i) + 0.5f) - 0.5f;
        place = place < 0 ? 0 : place;
        const int64_t first = std::min<int64_t>(static_cast<int64_t>(place), n - 1);
        result.first.push_back(first);
        result.second.push_back(std::min(first + 1, n - 1));
        result.weight[i] = std::min(place - float(first), 1.0f);
      }
      return result;
    };
    const Axis v = axis(0);
    const Axis h = axis(1);
    const auto pick = [](const at::Tensor& t, int64_t dim, const std::vector<int64_t>& indices) {
      std::vector<at::Tensor> parts;
      for (const int64_t i : indices) parts.push_back(t.narrow(dim, i, 1));
      return at::cat(parts, dim);
    };
    const auto row = [&](const std::vector<int64_t>& rows) {
      const at::Tensor t = pick(steps, 2, rows);
      const at::Tensor left = pick(t, 3, h.first) * (1.0f - h.weight);
      const at::Tensor right = pick(t, 3, h.second) * h.weight;
      return left + right;
    };
    const at::Tensor top = row(v.first) * (1.0f - v.weight).unsqueeze(1);
    const at::Tensor bottom = row(v.second) * v.weight.unsqueeze(1);
    node.inputs = {x.value};
    const at::Tensor between = top + bottom;
    return finish(std::move(node), between * x.q->scale);
  }

  Tensor cat(const std::vector<Tensor>& parts, int64_t dim) {
    Node node{.op = "cat", .ints = {{"dim", {dim}}}};
    std::vector<at::Tensor> tensors;
    for (const Tensor& part : parts) {
      node.inputs.push_back(part.value);
      tensors.push_back(part.expected);
    }
    // Under the parameters of the first one, whose codes then stay.
    if (random.chance(0.3)) {
      const QParams q = *parts[0].q;
      return {add_node(graph_, std::move(node), q), rounded_to_codes(at::cat(tensors, dim), q), q};
    }
    return finish(std::move(node), at::cat(tensors, dim));
  }

  void output(const Tensor& x) {
    graph_.outputs.push_back(x.q ? dequantize(graph_, x.value) : x.value);
    expected_.push_back(x.expected);
  }

  const Graph& graph() const { return graph_; }
  const std::vector<at::Tensor>& inputs() const { return inputs_; }
  const std::vector<at::Tensor>& expected() const { return expected_; }

  ::testing::AssertionResult is_expected(const std::vector<at::Tensor>& outputs) const {
    if (outputs.size() != expected_.size()) {
      return ::testing::AssertionFailure() << outputs.size() << " outputs";
    }
    for (size_t i = 0; i < outputs.size(); ++i) {
      auto same = testing::same_bits(outputs[i], expected_[i]);
      if (!same) return same << ", output " << i << ", " << description();
    }
    return ::testing::AssertionSuccess();
  }

  // Runs the program on one thread and on two.
  void check() const {
    const Program program(graph_);
    for (const int count : {1, 2}) {
      const testing::Threads threads(count);
      ASSERT_TRUE(is_expected(program.run(inputs_))) << ", " << count << " threads";
    }
  }

 private:
  // What quantizing each row by its own range makes of it, by rows.h.
  struct DynamicRows {
    DynamicRows(const Tensor& x, int64_t quant_max_)
        : quant_max(quant_max_), is_image(x.expected.dim() == 4) {
      const at::Tensor t = is_image ? x.expected.permute({0, 2, 3, 1}) : x.expected;
      const at::Tensor size = at::where(at::isfinite(t), t.abs(), at::zeros_like(t));
      const at::Tensor most = size.amax(-1, /*keepdim=*/true);
      const at::Tensor exact = at::clamp(most.to(at::kDouble) / quant_max, 0x1p-126, 0x1p126);
      scale = at::where(most == 0, at::ones_like(most), exact.to(at::kFloat));
      const at::Tensor inverse = at::ones_like(scale) / scale;
      codes = at::nan_to_num(at::clamp(at::round(t * inverse), -quant_max, quant_max), 0.0) + 0.0;
      const at::Tensor lost = at::isnan(t).any(-1, /*keepdim=*/true);
      scale = scale.masked_fill(lost, std::numeric_limits<double>::quiet_NaN());
    }

    // Rows of results, where x has those of its elements.
    at::Tensor as_x(const at::Tensor& y) const { return is_image ? y.permute({0, 3, 1, 2}) : y; }

    int64_t quant_max;
    bool is_image;
    at::Tensor codes;
    at::Tensor scale;  // of one element for each row
  };

  // Along the last dimension, which is kept, in 16 lanes that are then added in halves.
  static at::Tensor lane_sum(const at::Tensor& x) {
    const int64_t n = x.size(-1);
    const at::Tensor padded = at::constant_pad_nd(x, {0, (n + 15) / 16 * 16 - n});
    at::Tensor lanes = at::zeros_like(padded.narrow(-1, 0, 16));
    for (int64_t i = 0; i < n; i += 16) lanes = lanes + padded.narrow(-1, i, 16);
    for (int64_t width = 8; width > 0; width /= 2) {
      lanes = lanes.narrow(-1, 0, width) + lanes.narrow(-1, width, width);
    }
    return lanes;
  }

  static at::Tensor expected_softmax(const at::Tensor& t) {
    const at::Tensor u = t - t.amax(-1, true);
    const at::Tensor x = at::clamp(u, -87.0f);
    const at::Tensor k = at::round(x * 1.44269504088896341f);
    const at::Tensor high = k * 0.693359375f;
    const at::Tensor low = k * -2.12194440e-4f;
    const at::Tensor r = (x - high) - low;
    at::Tensor p = at::full_like(r, 1.9875691500e-4f);
    for (const float c : {1.3981999507e-3f, 8.3334519073e-3f, 4.1665795894e-2f, 1.6666665459e-1f,
                          5.0000001201e-1f}) {
      const at::Tensor product = p * r;
      p = product + c;
    }
    const at::Tensor square = r * r;
    const at::Tensor bent = p * square;
    const at::Tensor power = at::exp2(k.to(at::kDouble)).to(at::kFloat);
    const at::Tensor e = at::where(u < -87.0f, at::zeros_like(u), ((bent + r) + 1.0f) * power);
    const at::Tensor sum = lane_sum(e);
    return e * (at::ones_like(sum) / sum);
  }

  // What moves codes.
  Tensor keep(Node node, const Tensor& x, const at::Tensor& expected) {
    node.inputs = {x.value};
    return {add_node(graph_, std::move(node), x.q), expected, x.q};
  }

  static Node upsample(const char* op, const Sizes& size, const std::vector<double>& scale,
                       const char* option, bool value) {
    Node node{.op = op, .ints = {{option, {value}}}};
    if (size.empty()) {
      node.floats["scale"] = scale;
    } else {
      node.ints["size"] = size;
    }
    return node;
  }

  float random_value(const QParams& q) {
    constexpr float kInf = std::numeric_limits<float>::infinity();
    constexpr float kSpecial[] = {kInf, -kInf, std::numeric_limits<float>::quiet_NaN(),
                                  0.0f, -0.0f, 3e38f};
    if (random.chance(0.02)) return kSpecial[random.integer(0, 5)];
    const auto code = static_cast<float>(random.integer(q.quant_min - 5, q.quant_max + 5));
    const float offset = random.chance(0.3) ? 0.5f : random.real(-0.5f, 0.5f);
    return (code - static_cast<float>(q.zero_point) + offset) * q.scale;
  }

  at::Tensor in_some_layout(const at::Tensor& x) {
    switch (random.integer(0, 3)) {
      case 0:
        return x.dim() == 4 ? x.contiguous(at::MemoryFormat::ChannelsLast) : x;
      case 1:  // gaps between elements
        return at::stack({x, x}, -1).select(-1, 0);
      case 2:  // the first dimension is the fastest
        return x.dim() == 0 ? x : x.movedim(0, -1).contiguous().movedim(-1, 0);
      default:
        return x;
    }
  }

  at::Tensor random_weight(const Sizes& sizes) {
    at::Tensor weight = at::empty(sizes, at::kChar);
    auto* data = weight.mutable_data_ptr<int8_t>();
    const int64_t limit = std::array{128, 128, 8, 2}[static_cast<size_t>(random.integer(0, 3))];
    for (int64_t i = 0; i < weight.numel(); ++i) {
      data[i] = static_cast<int8_t>(random.integer(-limit, limit - 1));
    }
    return weight;
  }

  static double suitable_scale(const at::Tensor& y) {
    const double most =
        y.numel() == 0 ? 0.0 : at::nan_to_num(y, 0, 4, 4).abs().max().item<double>();
    return (most + 1e-3) / 150.0;
  }

  Tensor quantize(int64_t value, const at::Tensor& y, const QParams& q) {
    return {engine::quantize(graph_, value, q), rounded_to_codes(y, q), q};
  }

  // The contract's quantization and dequantization; NaN counts as 0.0.
  static at::Tensor rounded_to_codes(const at::Tensor& y, const QParams& q) {
    const at::Tensor scaled = y * q.inv_scale;
    const at::Tensor codes = at::clamp(at::round(scaled) + q.zero_point, q.quant_min, q.quant_max);
    return at::nan_to_num(codes - q.zero_point, 0.0) * q.scale;
  }

  // Gives the node a random clamp, and codes or float32 as its output. y: its result before that.
  Tensor finish(Node node, at::Tensor y) {
    if (random.chance(0.5)) {
      const double most =
          y.numel() == 0 ? 1.0 : at::nan_to_num(y, 0, 4, 4).abs().max().item<double>();
      const double low = random.chance(0.6) ? 0.0 : -0.3 * most;
      const double high = random.chance(0.5) ? std::numeric_limits<double>::infinity() : 0.5 * most;
      node.floats["clamp"] = {low, high};
      y = at::clamp(y, static_cast<float>(low), static_cast<float>(high));
    }
    std::optional<QParams> q;
    if (random.chance(0.6)) {
      q = random_qparams(suitable_scale(y));
      y = rounded_to_codes(y, *q);
    }
    return {add_node(graph_, std::move(node), q), y, q};
  }

  // A convolution or linear layer whose channels lie along the dimension of `view` that is -1.
  Tensor layer(Node node, const Tensor& x, const at::Tensor& weight, const at::Tensor& sums,
               const Sizes& view, bool with_residual) {
    const int64_t channels = weight.size(0);
    const at::Tensor weight_scale = random_floats(random, {channels}, 0.001f, 0.02f);
    const at::Tensor bias = random_floats(random, {channels}, -3.0f, 3.0f);
    node.tensors = {{"weight", weight}, {"weight_scale", weight_scale}, {"bias", bias}};
    const at::Tensor scale = weight_scale * x.q->scale;
    const at::Tensor product = sums.to(at::kFloat) * scale.view(view);
    at::Tensor y = product + bias.view(view);
    if (with_residual) {
      const Tensor residual = input(y.sizes().vec());
      node.inputs.push_back(residual.value);
      y = y + residual.expected;
    }
    return finish(std::move(node), y);
  }

  Tensor average(Node node, const Tensor& x, const at::Tensor& sums, const at::Tensor& divisors) {
    const at::Tensor counts = divisors.to(at::kFloat);
    const at::Tensor multiplier = at::full_like(counts, x.q->scale) / counts;
    return finish(std::move(node), sums.to(at::kFloat) * multiplier);
  }

  // For failures.
  std::string description() const {
    std::ostringstream out;
    for (const Node& node : graph_.nodes) {
      out << node.op << " ";
      for (const auto& [key, numbers] : node.ints) out << key << "=" << numbers << " ";
      for (const auto& [key, t] : node.tensors) out << key << "=" << t.sizes() << " ";
    }
    for (const at::Tensor& x : inputs_)
      out << "input " << x.sizes() << " strides " << x.strides() << " ";
    return out.str();
  }

  Graph graph_;
  std::vector<at::Tensor> inputs_;
  std::vector<at::Tensor> expected_;
};

}  // namespace qatx::engine
