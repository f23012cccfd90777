// Every operator of the engine, run in programs, against an oracle: the same bits.

#include <array>

#include "network.h"

namespace qatx::engine {
namespace {

using Sizes = Network::Sizes;

// Calls build(network) for networks of many seeds and checks their outputs.
template <class F>
void check_networks(unsigned seeds, const F& build) {
  for (unsigned seed = 0; seed < seeds; ++seed) {
    SCOPED_TRACE(::testing::Message() << "seed " << seed);
    Network network(seed);
    network.output(build(network));
    network.check();
    if (::testing::Test::HasFatalFailure()) return;
  }
}

Sizes random_pair(Network& network, int64_t low, int64_t high) {
  return {network.random.integer(low, high), network.random.integer(low, high)};
}

// An image that a window of this span fits, and little more.
Sizes random_image(Network& network, int64_t channels, int64_t height, int64_t width) {
  auto& random = network.random;
  return {random.integer(1, 3), channels, height + random.integer(0, 6),
          width + random.integer(0, 6)};
}

// Numbers of channels around the widths of vectors and blocks.
int64_t random_channels(Network& network) {
  auto& random = network.random;
  return random.chance(0.2) ? random.integer(60, 140) : random.integer(1, 20);
}

Network::Conv2dOptions random_conv2d(Network& network) {
  auto& random = network.random;
  Network::Conv2dOptions o{.out_channels = 1, .kernel = random_pair(network, 1, 4)};
  if (random.chance(0.5)) o.stride = random_pair(network, 1, 3);
  if (random.chance(0.3)) o.dilation = random_pair(network, 1, 3);
  if (random.chance(0.7)) {
    o.padding = {random.integer(0, 3), random.integer(0, 3), random.integer(0, 3),
                 random.integer(0, 3)};
  }
  return o;
}

Network::Tensor conv2d_input(Network& network, int64_t channels, const Network::Conv2dOptions& o) {
  const auto span = [&](size_t d) {
    const int64_t padding = o.padding[d] + o.padding[d + 2];
    return std::max<int64_t>(1, o.dilation[d] * (o.kernel[d] - 1) + 1 - padding);
  };
  return network.input(random_image(network, channels, span(0), span(1)));
}

TEST(OperatorsTest, Conv2d) {
  check_networks(120, [](Network& network) {
    Network::Conv2dOptions o = random_conv2d(network);
    o.out_channels = random_channels(network);
    const auto x = conv2d_input(network, random_channels(network), o);
    return network.conv2d(x, o, network.random.chance(0.4));
  });
}

TEST(OperatorsTest, Conv2dWithOneTap) {
  check_networks(40, [](Network& network) {
    const auto x = network.input(random_image(network, random_channels(network), 1, 1));
    Network::Conv2dOptions o{.out_channels = random_channels(network), .kernel = {1, 1}};
    if (network.random.chance(0.3)) o.stride = {2, 2};
    return network.conv2d(x, o, network.random.chance(0.4));
  });
}

TEST(OperatorsTest, DepthwiseConv2d) {
  check_networks(120, [](Network& network) {
    Network::Conv2dOptions o = random_conv2d(network);
    o.out_channels = o.groups = 1 + random_channels(network);
    return network.conv2d(conv2d_input(network, o.groups, o), o, network.random.chance(0.4));
  });
}

TEST(OperatorsTest, GroupedConv2d) {
  check_networks(60, [](Network& network) {
    auto& random = network.random;
    Network::Conv2dOptions o = random_conv2d(network);
    o.groups = random.integer(2, 5);
    // With one channel in a group, a depthwise convolution of several outputs for each input.
    const int64_t channels = o.groups * (random.chance(0.3) ? 1 : random.integer(1, 40));
    o.out_channels = o.groups * random.integer(2, 20);
    return network.conv2d(conv2d_input(network, channels, o), o, random.chance(0.4));
  });
}

TEST(OperatorsTest, MatMul) {
  check_networks(120, [](Network& network) {
    auto& random = network.random;
    const int64_t batches = random.integer(1, 4);
    const int64_t k = random_channels(network);
    const auto a = network.input({batches, random_channels(network), k});
    return network.matmul(a, network.symmetric_input({batches, random_channels(network), k}));
  });
}

TEST(OperatorsTest, ScoresWithAndWithoutSoftmax) {
  check_networks(200, [](Network& network) {
    auto& random = network.random;
    const int64_t parts = random.integer(1, 3);
    const int64_t heads = random.integer(1, 3);
    const int64_t rows = random.integer(1, 12);
    const int64_t columns = random_channels(network);
    const auto x = random.chance(0.3) ? network.input({parts * heads, rows, columns})
                                      : network.float_scores(parts * heads, rows, columns);
    const int64_t mask_rows = random.chance(0.5) ? 1 : rows;
    const Sizes masks[] = {{},
                           {columns},
                           {mask_rows, columns},
                           {1, mask_rows, columns},
                           {parts * heads, mask_rows, columns},
                           {heads, mask_rows, columns},
                           {1, heads, mask_rows, columns},
                           {parts, heads, mask_rows, columns},
                           {parts, 1, mask_rows, columns}};
    return network.scores(x, random.chance(0.6), masks[random.integer(0, 8)]);
  });
}

TEST(OperatorsTest, SoftmaxOfAnyNumberOfDimensions) {
  for (const Sizes& sizes : {Sizes{7}, Sizes{5, 33}, Sizes{2, 3, 2, 1, 2, 17}}) {
    check_networks(10, [&](Network& n) { return n.scores(n.input(sizes), true, {}); });
  }
}

TEST(OperatorsTest, LayerNorm) {
  check_networks(120, [](Network& network) {
    auto& random = network.random;
    const int64_t n = random_channels(network) * (random.chance(0.1) ? 10 : 1);
    switch (random.integer(0, 3)) {
      case 0:
        return network.layer_norm(network.input({n}));
      case 1:
        return network.layer_norm(network.input({random.integer(1, 40), n}));
      case 2:
        return network.layer_norm(network.float_scores(2, random.integer(1, 9), n));
      default:
        return network.layer_norm(network.input(random_image(network, n, 1, 1)));
    }
  });
}

TEST(OperatorsTest, Conv3d) {
  check_networks(80, [](Network& network) {
    auto& random = network.random;
    const auto three = [&](int64_t low, int64_t high) {
      return Sizes{random.integer(low, high), random.integer(low, high), random.integer(low, high)};
    };
    Network::Conv3dOptions o{.out_channels = random_channels(network), .kernel = three(1, 3)};
    int64_t channels = random_channels(network);
    if (random.chance(0.3)) {
      o.groups = channels = random.integer(2, 20);  // depthwise
      o.out_channels = o.groups * random.integer(1, 2);
    }
    if (random.chance(0.5)) o.stride = three(1, 3);
    if (random.chance(0.3)) o.dilation = three(1, 2);
    if (random.chance(0.7)) {
      for (int64_t& side : o.padding) side = random.integer(0, 2);
    }
    Sizes sizes{random.integer(1, 2), channels};
    for (size_t d = 0; d < 3; ++d) {
      sizes.push_back(o.dilation[d] * (o.kernel[d] - 1) + random.integer(1, 4));
    }
    return network.conv3d(network.input(sizes), o, random.chance(0.3));
  });
}

TEST(OperatorsTest, PoolingOfVolumes) {
  check_networks(80, [](Network& network) {
    auto& random = network.random;
    const auto three = [&](int64_t low, int64_t high) {
      return Sizes{random.integer(low, high), random.integer(low, high), random.integer(low, high)};
    };
    const Sizes kernel = three(1, 3);
    Sizes padding = three(0, 1);
    for (size_t d = 0; d < 3; ++d) padding[d] = std::min(padding[d], kernel[d] / 2);
    Sizes sizes{random.integer(1, 2), random_channels(network)};
    for (size_t d = 0; d < 3; ++d) sizes.push_back(kernel[d] + random.integer(0, 5));
    const auto x = network.input(sizes);
    switch (random.integer(0, 2)) {
      case 0:
        return network.max_pool3d(x, kernel, three(1, 3), padding, {1, 1, 1}, random.chance(0.3));
      case 1:
        return network.avg_pool3d(x, kernel, three(1, 3), padding, random.chance(0.3),
                                  random.chance(0.5));
      default:
        return network.adaptive_avg_pool3d(x, three(1, 4));
    }
  });
}

TEST(OperatorsTest, Embedding) {
  at::manual_seed(0);
  check_networks(60, [](Network& network) {
    auto& random = network.random;
    const int64_t width = random_channels(network);
    const int64_t bags = random.integer(0, 2);
    const Sizes sizes = bags == 0 && random.chance(0.7)
                            ? Sizes{random.integer(1, 4), random.integer(1, 9)}
                            : Sizes{random.integer(1, 12)};
    return network.embedding(sizes, random.integer(1, 30), width, bags);
  });
}

TEST(OperatorsTest, IndicesOutOfRange) {
  for (const int64_t bad : {int64_t{-1}, int64_t{5}, std::numeric_limits<int64_t>::max()}) {
    Network network(1);
    network.output(network.embedding({3}, 5, 4, 0));
    const Program program(network.graph());
    const at::Tensor indices = at::full({3}, bad, at::kLong);
    EXPECT_TRUE(testing::throws<c10::IndexError>([&] { static_cast<void>(program.run({indices})); },
                                                 "is not in 0..4"));
  }
}

Network::Tensor random_conv_transpose(Network& network, size_t dimensions) {
  auto& random = network.random;
  Network::ConvTransposeOptions o{random_channels(network), {}, {}, {}, {}, {}};
  for (size_t d = 0; d < dimensions; ++d) {
    o.kernel.push_back(random.integer(1, 4));
    o.stride.push_back(random.integer(1, 4));
    o.dilation.push_back(random.integer(1, 3));
  }
  o.groups = random.chance(0.4) ? random.integer(2, 4) : 1;
  o.out_channels *= o.groups;
  Sizes sizes{random.integer(1, 3), random_channels(network) * o.groups};
  for (size_t d = 0; d < dimensions; ++d) {
    sizes.push_back(random.integer(1, dimensions == 3 ? 4 : 7));
    o.output_padding.push_back(random.integer(0, std::max(o.stride[d], o.dilation[d]) - 1));
    const int64_t size =
        (sizes.back() - 1) * o.stride[d] + o.dilation[d] * (o.kernel[d] - 1) + o.output_padding[d];
    o.padding.push_back(random.integer(0, std::min<int64_t>(3, size / 2)));
  }
  return network.conv_transpose(network.input(sizes), o);
}

TEST(OperatorsTest, ConvTranspose2d) {
  check_networks(150, [](Network& network) { return random_conv_transpose(network, 2); });
  const Network::ConvTransposeOptions twice{70, {2, 2}, {2, 2}, {1, 1}, {0, 0}, {0, 0}};
  check_networks(2, [&](Network& n) { return n.conv_transpose(n.input({2, 35, 24, 25}), twice); });
}

TEST(OperatorsTest, ConvTranspose3d) {
  check_networks(60, [](Network& network) { return random_conv_transpose(network, 3); });
}

TEST(OperatorsTest, MeanAndGreatest) {
  check_networks(150, [](Network& network) {
    auto& random = network.random;
    Sizes sizes;
    const int64_t dimensions = random.chance(0.5) ? 4 : random.integer(1, 5);
    for (int64_t d = 0; d < dimensions; ++d) sizes.push_back(random.integer(1, 9));
    Sizes dims;
    for (int64_t d = 0; d < dimensions; ++d) {
      if (random.chance(0.5)) dims.push_back(d);
    }
    if (dims.empty()) dims.push_back(random.integer(0, dimensions - 1));
    const auto x = network.input(sizes);
    return random.chance(0.7) ? network.mean(x, dims) : network.amax(x, dims);
  });
  check_networks(2, [](Network& n) { return n.mean(n.input({2, 70, 30, 31}), {1}); });
}

// Large enough that threads share the rows, or the columns.
TEST(OperatorsTest, LayersThatThreadsShare) {
  const Network::Conv2dOptions conv{.out_channels = 70, .kernel = {3, 3}, .padding = {1, 1, 1, 1}};
  const Network::Conv2dOptions depthwise{
      .out_channels = 70, .kernel = {3, 3}, .padding = {1, 1, 1, 1}, .groups = 70};
  const Network::Conv2dOptions columns{.out_channels = 300, .kernel = {3, 3}};
  check_networks(2, [&](Network& n) { return n.conv2d(n.input({2, 35, 24, 25}), conv, true); });
  check_networks(2,
                 [&](Network& n) { return n.conv2d(n.input({2, 70, 40, 41}), depthwise, true); });
  check_networks(2, [&](Network& n) { return n.conv2d(n.input({1, 130, 3, 4}), columns, true); });
  check_networks(2, [&](Network& n) { return n.linear(n.input({1, 1000}), 500, true); });
  check_networks(2, [&](Network& n) { return n.linear(n.input({300, 100}), 90, true); });
}

TEST(OperatorsTest, Linear) {
  check_networks(120, [](Network& network) {
    auto& random = network.random;
    Sizes sizes;
    const int64_t dimensions =
        std::vector<int64_t>{1, 2, 2, 3, 6}[static_cast<size_t>(random.integer(0, 4))];
    for (int64_t d = 1; d < dimensions; ++d)
      sizes.push_back(random.integer(1, dimensions == 6 ? 3 : 15));
    sizes.push_back(random.chance(0.2) ? random.integer(60, 300) : random.integer(1, 20));
    return network.linear(network.input(sizes), random_channels(network), random.chance(0.4));
  });
}

TEST(OperatorsTest, LinearOfRowsByTheirOwnRange) {
  check_networks(120, [](Network& network) {
    auto& random = network.random;
    const int64_t k = random.chance(0.2) ? random.integer(60, 300) : random.integer(1, 20);
    const int64_t out = random_channels(network);
    switch (random.integer(0, 3)) {
      case 0:
        return network.dynamic_linear(network.input({k}), out);
      case 1:
        return network.dynamic_linear(network.input({random.integer(1, 40), k}), out);
      case 2:
        return network.dynamic_linear(network.float_scores(2, random.integer(1, 9), k), out);
      default:
        return network.dynamic_linear(network.input(random_image(network, k, 1, 1)), out);
    }
  });
  check_networks(2, [](Network& n) { return n.dynamic_linear(n.input({200, 70}), 300); });
}

TEST(OperatorsTest, RowsByTheirOwnRange) {
  check_networks(60, [](Network& network) {
    auto& random = network.random;
    const int64_t n = random_channels(network);
    if (random.chance(0.3)) {
      return network.dynamic_fake_quantize(network.input(random_image(network, n, 1, 1)));
    }
    return network.dynamic_fake_quantize(network.float_scores(2, random.integer(1, 9), n));
  });
}

// The largest sums that are allowed: 65,536 products of 255 steps and -128.
TEST(OperatorsTest, LargestSums) {
  constexpr int64_t kProducts = 65536;
  for (const bool positive : {false, true}) {
    // Codes 0..255 stand for 0..255, or for -255..0.
    const QParams q = make_qparams(1.0, positive ? 0 : 255, 0, 255);
    const double x = positive ? 255 : -255;
    const Node layer{.op = "linear",
                     .tensors = {{"weight", full({1, kProducts}, -128, at::kChar)},
                                 {"weight_scale", full({1}, 1)},
                                 {"bias", full({1}, 0)}}};
    Graph graph;
    Node node = layer;
    node.inputs = {quantize(graph, add_input(graph), q)};
    graph.outputs = {add_node(graph, node)};
    const auto y = Program(graph).run({full({1, kProducts}, x)});
    EXPECT_EQ(y.at(0).item<float>(), static_cast<float>(-128.0 * x * kProducts));
  }
}

Network::Tensor combine(Network& network, const Network::Tensor& a, const Network::Tensor& b) {
  switch (network.random.integer(0, 3)) {
    case 0:
      return network.add(a, b);
    case 1:
      return network.sub(a, b);
    case 2:
      return network.div(a, b);
    default:
      return network.mul(a, b);
  }
}

TEST(OperatorsTest, AddSubMulAndDiv) {
  check_networks(100, [](Network& network) {
    auto& random = network.random;
    Sizes sizes;
    for (int64_t d = random.integer(0, 5); d > 0; --d) sizes.push_back(random.integer(1, 7));
    const auto a = network.input(sizes);
    return combine(network, a, random.chance(0.1) ? a : network.input(sizes));
  });
  check_networks(
      1, [](Network& n) { return n.add(n.input({2, 16, 50, 50}), n.input({2, 16, 50, 50})); });
}

TEST(OperatorsTest, AddSubAndMulOfShapesThatBroadcast) {
  // Any of them: along each dimension, either operand may be repeated, or lack it.
  check_networks(200, [](Network& network) {
    auto& random = network.random;
    Sizes a;
    for (int64_t d = random.integer(1, 5); d > 0; --d) a.push_back(random.integer(1, 6));
    Sizes b = a;
    for (size_t d = 0; d < a.size(); ++d) {
      if (random.chance(0.4)) (random.chance(0.5) ? a : b)[d] = 1;
    }
    b.erase(b.begin(), b.begin() + random.integer(0, static_cast<int64_t>(b.size())));
    const bool swap = random.chance(0.5);
    return combine(network, network.input(swap ? b : a), network.input(swap ? a : b));
  });
  // By channel, by pixel, and both with threads that share the work.
  check_networks(
      2, [](Network& n) { return n.mul(n.input({3, 70, 24, 25}), n.input({3, 70, 1, 1})); });
  check_networks(
      2, [](Network& n) { return n.mul(n.input({2, 1, 60, 61}), n.input({2, 19, 60, 61})); });
  check_networks(2,
                 [](Network& n) { return n.add(n.input({1, 70, 40, 41}), n.input({70, 1, 1})); });
}

TEST(OperatorsTest, Table) {
  check_networks(60, [](Network& network) {
    auto& random = network.random;
    Sizes sizes;
    for (int64_t d = random.integer(0, 5); d > 0; --d) sizes.push_back(random.integer(1, 7));
    return network.table(network.input(sizes));
  });
  check_networks(2, [](Network& n) { return n.table(n.input({2, 16, 50, 50})); });
}

TEST(OperatorsTest, TableForEachIndexOfADimension) {
  check_networks(120, [](Network& network) {
    auto& random = network.random;
    Sizes sizes;
    for (int64_t d = random.integer(1, 5); d > 0; --d) sizes.push_back(random.integer(1, 7));
    const int64_t axis = random.integer(0, static_cast<int64_t>(sizes.size()) - 1);
    return network.table(network.input(sizes), axis);
  });
  check_networks(2, [](Network& n) { return n.table(n.input({2, 16, 50, 50}), 1); });
  check_networks(2, [](Network& n) { return n.table(n.input({3, 16, 2000}), 1); });
}

Network::PoolOptions random_pool(Network& network) {
  auto& random = network.random;
  Network::PoolOptions o{.kernel = random_pair(network, 1, 4),
                         .stride = random_pair(network, 1, 4),
                         .padding = {0, 0},
                         .ceil_mode = random.chance(0.5)};
  if (random.chance(0.6)) {
    o.padding = {random.integer(0, o.kernel[0] / 2), random.integer(0, o.kernel[1] / 2)};
  }
  return o;
}

TEST(OperatorsTest, MaxPool2d) {
  check_networks(150, [](Network& network) {
    const Network::PoolOptions o = random_pool(network);
    // Padding that is wider than the image beside it, with dilation, may leave a window without an
    // element.
    const bool padded = o.padding != Sizes{0, 0};
    const Sizes dilation = padded ? Sizes{1, 1} : random_pair(network, 1, 3);
    const Sizes image =
        random_image(network, random_channels(network), dilation[0] * (o.kernel[0] - 1) + 1,
                     dilation[1] * (o.kernel[1] - 1) + 1);
    return network.max_pool2d(network.input(image), o, dilation);
  });
}

TEST(OperatorsTest, MaxPool2dWithPaddingAndDilation) {
  const Network::PoolOptions o{.kernel = {3, 2}, .stride = {1, 2}, .padding = {1, 1}};
  check_networks(4, [&](Network& n) { return n.max_pool2d(n.input({2, 5, 9, 8}), o, {2, 3}); });
}

TEST(OperatorsTest, AvgPool2d) {
  check_networks(150, [](Network& network) {
    auto& random = network.random;
    const Network::PoolOptions o = random_pool(network);
    const Sizes image = random_image(network, random_channels(network), o.kernel[0], o.kernel[1]);
    const int64_t divisor = random.chance(0.2) ? random.integer(1, 20) : 0;
    return network.avg_pool2d(network.input(image), o, random.chance(0.5), divisor);
  });
}

// Every way in which the last window of a row may lie: inside, in the padding, cut off by
// ceil_mode.
TEST(OperatorsTest, PoolingWindowsAtTheEnd) {
  for (int64_t kernel = 1; kernel <= 4; ++kernel) {
    for (int64_t stride = 1; stride <= 4; ++stride) {
      for (int64_t padding = 0; padding <= kernel / 2; ++padding) {
        for (int64_t size = kernel; size < kernel + 4; ++size) {
          for (const bool ceil_mode : {false, true}) {
            // The same along one dimension, and nothing special along the other.
            const Network::PoolOptions o{.kernel = {kernel, 1},
                                         .stride = {stride, 1},
                                         .padding = {padding, 0},
                                         .ceil_mode = ceil_mode};
            Network network(static_cast<unsigned>(size));
            const auto x = network.input({1, 3, size, 2});
            network.output(network.max_pool2d(x, o, {1, 1}));
            network.output(network.avg_pool2d(x, o, true, 0));
            network.output(network.avg_pool2d(x, o, false, 0));
            network.check();
            if (HasFatalFailure()) return;
          }
        }
      }
    }
  }
}

// PyTorch rounds the size up to a window that fits only in part.
TEST(OperatorsTest, CeilModeWithAWindowThatDoesNotFitTheImage) {
  const Network::PoolOptions o{
      .kernel = {2, 2}, .stride = {2, 2}, .padding = {0, 0}, .ceil_mode = true};
  check_networks(2, [&](Network& n) { return n.max_pool2d(n.input({2, 3, 1, 5}), o, {1, 1}); });
  check_networks(2, [&](Network& n) { return n.avg_pool2d(n.input({2, 3, 1, 5}), o, true, 0); });
}

TEST(OperatorsTest, AdaptiveAvgPool2d) {
  check_networks(100, [](Network& network) {
    auto& random = network.random;
    const Sizes image = random_image(network, random_channels(network), 1, 1);
    const Sizes size = random.chance(0.4) ? Sizes{1, 1} : random_pair(network, 1, 9);
    const bool squeeze = size == Sizes{1, 1} && random.chance(0.5);
    return network.adaptive_avg_pool2d(network.input(image), size, squeeze);
  });
  check_networks(
      1, [](Network& n) { return n.adaptive_avg_pool2d(n.input({3, 100, 30, 31}), {1, 1}, true); });
}

TEST(OperatorsTest, Reshape) {
  const std::vector<std::array<Sizes, 2>> cases = {{{{2, 3, 4, 5}, {2, 60}}},
                                                   {{{2, 3, 4, 5}, {120}}},
                                                   {{{2, 3, 4, 5}, {12, 10}}},
                                                   {{{2, 3, 4, 5}, {2, 3, 20}}},
                                                   {{{2, 3, 4, 5}, {2, 3, 4, 5, 1}}},
                                                   {{{2, 3, 4, 5}, {2, 3, 2, 2, 5}}},
                                                   {{{3, 1, 4, 5}, {3, 20}}},
                                                   {{{3, 7, 1, 1}, {3, 7}}},
                                                   {{{6, 4}, {8, 3}}},
                                                   {{{12}, {3, 4}}},
                                                   {{{2, 20, 40, 45}, {2, 36000}}},
                                                   {{{2, 3, 4, 5}, {5, 4, 3, 2}}},
                                                   {{{2, 60}, {2, 3, 4, 5}}},
                                                   {{{7, 6, 5, 4}, {5, 8, 7, 3}}},
                                                   {{{2, 12, 3, 3}, {2, 3, 4, 9}}},
                                                   {{{8, 9}, {1, 12, 6, 1}}}};
  for (const auto& [input, sizes] : cases) {
    check_networks(3, [&](Network& n) { return n.reshape(n.input(input), sizes); });
  }
}

TEST(OperatorsTest, Moves) {
  check_networks(300, [](Network& network) {
    auto& random = network.random;
    Sizes sizes;
    for (int64_t d = random.chance(0.6) ? 4 : random.integer(1, 5); d > 0; --d) {
      sizes.push_back(random.chance(0.1) ? 24 : random.integer(1, 8));
    }
    return network.moves(network.input(sizes));
  });
  // Images that become rows, and back, on threads that share the work.
  check_networks(3, [](Network& n) { return n.reshape(n.input({1, 70, 40, 41}), {70, 1640}); });
  check_networks(3, [](Network& n) { return n.reshape(n.input({70, 1640}), {1, 70, 40, 41}); });
}

// A random tensor and one of its dimensions.
std::pair<Network::Tensor, int64_t> random_input(Network& network) {
  auto& random = network.random;
  Sizes sizes;
  const int64_t dimensions = random.chance(0.6) ? 4 : random.integer(1, 5);
  for (int64_t d = 0; d < dimensions; ++d) sizes.push_back(random.integer(1, 8));
  return {network.input(sizes), random.integer(0, dimensions - 1)};
}

TEST(OperatorsTest, Slice) {
  check_networks(200, [](Network& network) {
    auto& random = network.random;
    const auto [x, dim] = random_input(network);
    const int64_t size = x.expected.size(dim);
    if (random.chance(0.3)) {
      const int64_t count = random.integer(1, size);
      const int64_t parts = (size + (size + count - 1) / count - 1) / ((size + count - 1) / count);
      return network.chunk(x, dim, random.integer(0, parts - 1), count);
    }
    const int64_t start = random.integer(0, size - 1);
    const int64_t end = random.chance(0.2) ? std::numeric_limits<int64_t>::max()
                                           : random.integer(start + 1, size + 3);
    const bool from_end = random.chance(0.3);
    const int64_t step = random.integer(1, random.chance(0.1) ? 20 : 3);
    return network.slice(x, dim, from_end ? start - size : start,
                         from_end && end < size ? end - size : end, step);
  });
}

TEST(OperatorsTest, Pad) {
  check_networks(200, [](Network& network) {
    auto& random = network.random;
    const auto [x, dim] = random_input(network);
    // PyTorch pads three modes along the last dimensions only.
    const bool image = x.expected.dim() == 4;
    const int64_t mode = image ? random.integer(0, 3) : 0;
    Sizes pads;
    const int64_t dimensions = mode > 0 ? 2 : x.expected.dim() - dim;
    for (int64_t d = 0; d < dimensions; ++d) {
      const int64_t size = x.expected.size(-1 - d);
      const int64_t most = mode == 1 ? size - 1 : mode == 3 ? size : 4;
      for (int side = 0; side < 2; ++side) {
        pads.push_back(random.integer(mode > 0 ? 0 : -((size - 1) / 2), most));
      }
    }
    return network.pad(x, pads, mode);
  });
}

TEST(OperatorsTest, Cat) {
  check_networks(150, [](Network& network) {
    auto& random = network.random;
    const auto [first, dim] = random_input(network);
    std::vector<Network::Tensor> parts = {first};
    for (int64_t count = random.integer(0, 3); count > 0; --count) {
      Sizes sizes = first.expected.sizes().vec();
      sizes[static_cast<size_t>(dim)] = random.integer(1, 70);
      parts.push_back(random.chance(0.2) ? first : network.input(sizes));
    }
    return network.cat(parts, dim);
  });
  check_networks(
      2, [](Network& n) { return n.cat({n.input({2, 70, 30, 31}), n.input({2, 33, 30, 31})}, 1); });
}

TEST(OperatorsTest, Upsample) {
  for (const bool bilinear : {false, true}) {
    check_networks(200, [&](Network& network) {
      auto& random = network.random;
      const auto x = network.input(random_image(network, random_channels(network), 1, 1));
      Sizes size;
      std::vector<double> scale;
      if (random.chance(0.5)) {
        size = random_pair(network, 1, 20);
      } else {
        for (int64_t d = 2; d < 4; ++d) {
          const auto least = 1.0f / static_cast<float>(x.expected.size(d));
          scale.push_back(random.chance(0.6) ? static_cast<double>(random.integer(1, 4))
                                             : double{random.real(least, 3.0f)});
        }
      }
      const bool option = random.chance(0.5);
      return bilinear ? network.upsample_bilinear(x, size, scale, option)
                      : network.upsample_nearest(x, size, scale, option);
    });
  }
}

TEST(OperatorsTest, QuantizeAndDequantize) {
  check_networks(150, [](Network& network) {
    auto& random = network.random;
    if (random.chance(0.6))
      return network.input(random_image(network, random_channels(network), 1, 1));
    Sizes sizes;
    for (int64_t d = random.integer(0, 5); d > 0; --d) sizes.push_back(random.integer(1, 9));
    return network.requantize(network.input(sizes));
  });
  check_networks(4, [](Network& n) { return n.input({3, 20, 40, 45}); });
}

TEST(OperatorsTest, NaNCountsAsZero) {
  const at::Tensor x = full({1, 2, 3, 3}, std::numeric_limits<double>::quiet_NaN());
  Graph graph;
  graph.outputs = {
      dequantize(graph, quantize(graph, add_input(graph), make_qparams(0.5, 7, 0, 255)))};
  const Program program(graph);
  EXPECT_TRUE(testing::same_bits(program.run({x})[0], full({1, 2, 3, 3}, 0.0)));
  EXPECT_TRUE(testing::same_bits(program.run({x.contiguous(at::MemoryFormat::ChannelsLast)})[0],
                                 full({1, 2, 3, 3}, 0.0)));
}

// One operator after another, float32 between some of them, and one image that is read by several.
TEST(OperatorsTest, Networks) {
  check_networks(40, [](Network& network) {
    auto& random = network.random;
    const auto codes = [&](const Network::Tensor& x) { return x.q ? x : network.requantize(x); };
    const int64_t channels = random.integer(2, 40);
    const auto image = network.input({random.integer(1, 3), random.integer(1, 5), 14, 12});
    const auto stem = codes(network.conv2d(
        image,
        {.out_channels = channels, .kernel = {3, 3}, .stride = {1, 2}, .padding = {1, 1, 1, 1}},
        false));
    const auto pooled =
        network.max_pool2d(stem, {.kernel = {2, 2}, .stride = {2, 2}, .padding = {0, 0}}, {1, 1});
    const auto depthwise = codes(network.conv2d(
        pooled,
        {.out_channels = channels, .kernel = {3, 3}, .padding = {1, 1, 1, 1}, .groups = channels},
        false));
    const auto sum = codes(network.add(depthwise, pooled));
    const auto again =
        codes(network.conv2d(sum, {.out_channels = channels, .kernel = {1, 1}}, true));
    network.output(again);
    const auto averaged =
        codes(network.adaptive_avg_pool2d(network.requantize(again), {2, 1}, false));
    const auto flat = network.reshape(averaged, {image.expected.size(0), 2 * channels});
    network.output(sum);
    return network.linear(flat, 10, false);
  });
}

}  // namespace
}  // namespace qatx::engine
