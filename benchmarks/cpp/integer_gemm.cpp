// The integer matrix kernel in use over the convolutions of ResNet-50, on one thread, against the
// most products a second that its instruction allows. Prints seconds of every timed call as JSON.
//   integer_gemm ROUNDS

#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/randint.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <immintrin.h>

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

#include "qatx/engine/operators/gemm.h"
#include "qatx/kernels/registry.h"

namespace qatx::kernels {
namespace {

double seconds_since(std::chrono::steady_clock::time_point begin) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

// Products a second of a loop of nothing but the instruction, on registers; 0 for instruction sets
// that have none.
double peak(Isa isa) {
  constexpr int64_t kLoops = 2'000'000;
  const auto begin = std::chrono::steady_clock::now();
  if (isa == Isa::amx) {
    alignas(64) uint8_t config[64] = {1};
    for (int i = 0; i < 8; ++i) config[16 + 2 * i] = 64, config[48 + i] = 16;
    asm volatile("ldtilecfg %0" ::"m"(config));
    for (int64_t i = 0; i < kLoops; ++i) {
      asm volatile(
          "tdpbusd %tmm6, %tmm4, %tmm0\n tdpbusd %tmm7, %tmm4, %tmm1\n"
          "tdpbusd %tmm6, %tmm5, %tmm2\n tdpbusd %tmm7, %tmm5, %tmm3");
    }
    asm volatile("tilerelease");
    return kLoops * 4 * 16 * 16 * 64 / seconds_since(begin);
  }
  if (isa == Isa::vnni) {
    for (int64_t i = 0; i < kLoops; ++i) {
      asm volatile(
          "vpdpbusd %%zmm30, %%zmm31, %%zmm0\n vpdpbusd %%zmm30, %%zmm31, %%zmm1\n"
          "vpdpbusd %%zmm30, %%zmm31, %%zmm2\n vpdpbusd %%zmm30, %%zmm31, %%zmm3\n"
          "vpdpbusd %%zmm30, %%zmm31, %%zmm4\n vpdpbusd %%zmm30, %%zmm31, %%zmm5\n"
          "vpdpbusd %%zmm30, %%zmm31, %%zmm6\n vpdpbusd %%zmm30, %%zmm31, %%zmm7\n"
          "vpdpbusd %%zmm30, %%zmm31, %%zmm8\n vpdpbusd %%zmm30, %%zmm31, %%zmm9" ::
              : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9");
    }
    return kLoops * 10 * 64 / seconds_since(begin);
  }
  return 0;
}

struct Layer {
  int64_t k;
  int64_t n;
  int64_t size;    // of the input, in both directions
  int64_t kernel;  // in both directions
  int64_t stride;
  int64_t count;  // how many such layers the network has

  int64_t out() const { return (size - 1) / stride + 1; }
  int64_t macs() const { return out() * out() * n * k * kernel * kernel; }
};

constexpr Layer kResNet50[] = {
    {3, 64, 224, 7, 2, 1},     {64, 64, 56, 1, 1, 1},    {64, 64, 56, 3, 1, 3},
    {64, 256, 56, 1, 1, 4},    {256, 64, 56, 1, 1, 2},   {256, 128, 56, 1, 1, 1},
    {128, 128, 56, 3, 2, 1},   {128, 128, 28, 3, 1, 3},  {128, 512, 28, 1, 1, 4},
    {256, 512, 56, 1, 2, 1},   {512, 128, 28, 1, 1, 3},  {512, 256, 28, 1, 1, 1},
    {256, 256, 28, 3, 2, 1},   {256, 256, 14, 3, 1, 5},  {256, 1024, 14, 1, 1, 6},
    {512, 1024, 28, 1, 2, 1},  {1024, 256, 14, 1, 1, 5}, {1024, 512, 14, 1, 1, 1},
    {512, 512, 14, 3, 2, 1},   {512, 512, 7, 3, 1, 2},   {512, 2048, 7, 1, 1, 3},
    {1024, 2048, 14, 1, 2, 1}, {2048, 512, 7, 1, 1, 2},
};

// Seconds of each round: of what a convolution in a program does.
std::vector<double> time_layer(const Layer& layer, int rounds) {
  const int64_t edge = (layer.kernel - 1) / 2;
  engine::Axis axis{layer.size, layer.out(), layer.stride, {}};
  for (int64_t t = 0; t < layer.kernel; ++t) axis.taps.push_back(t - edge);
  const int64_t together = engine::taps_together(axis.taps, layer.stride, layer.k, 1);
  engine::GemmInput input("layer", {engine::Axis{}, axis, axis}, 1, layer.k, together, 128);
  input.join_lines();
  const int64_t segments = layer.kernel * layer.kernel / together;
  const at::Tensor images =
      at::randint(256, {layer.size * layer.size * layer.k + kOverRead}, at::kByte);
  const at::Tensor weight =
      at::randint(-128, 128, {layer.n, segments, together * layer.k}, at::kChar);
  const engine::PackedGemm gemm({weight, at::full({layer.n}, 1e-4f), at::full({layer.n}, 0.5f)},
                                {1.0f, 1.0f, 128, 0, 255});
  at::Tensor out = at::empty({layer.out() * layer.out() * layer.n}, at::kByte);
  Epilogue epilogue{};
  epilogue.clamp_max = __builtin_inff();
  epilogue.out_stride = layer.n;
  epilogue.out = {0.1f, 10.0f, 0, 0, 255};
  std::vector<double> seconds;
  for (int round = -2; round < rounds; ++round) {
    const auto begin = std::chrono::steady_clock::now();
    input.for_each_part(images.const_data_ptr<uint8_t>(), 0, input.lines(),
                        [&](const Grid& grid, int64_t first) {
                          epilogue.out_u8 = out.mutable_data_ptr<uint8_t>() + first * layer.n;
                          gemm.run(grid, epilogue, 0, gemm.blocks());
                        });
    if (round >= 0) seconds.push_back(seconds_since(begin));
  }
  return seconds;
}

void run(int rounds) {
  std::vector<std::string> layers;
  std::vector<double> peaks;
  const Kernels& row = active();
  for (const Layer& layer : kResNet50) {
    peaks.push_back(peak(row.isa));
    const auto seconds = time_layer(layer, rounds);
    layers.push_back(fmt::format(
        "{{\"layer\": \"{0}x{0} {1}->{2}, {3}x{3}, stride {4}\", \"count\": {5}, \"macs\": {6}, "
        "\"seconds\": [{7}]}}",
        layer.size, layer.k, layer.n, layer.kernel, layer.stride, layer.count, layer.macs(),
        fmt::join(seconds, ", ")));
  }
  fmt::print("{{\"isa\": \"{}\", \"peak_macs_per_second\": [{}],\n \"layers\": [{}]}}\n",
             name(row.isa), fmt::join(peaks, ", "), fmt::join(layers, ",\n  "));
}

}  // namespace
}  // namespace qatx::kernels

int main(int argc, char** argv) {
  qatx::kernels::run(argc > 1 ? std::stoi(argv[1]) : 30);
  return 0;
}
