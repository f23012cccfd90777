// What it costs that gradients of scales have the same bits for any number of threads: the backward
// kernel over fixed blocks whose sums are added in order, as the operator calls it, against one
// call for each thread, whose sums depend on their number. Prints seconds of every timed call as
// JSON.
//   reproducible_sums ROUNDS

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/randn.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <chrono>
#include <functional>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "qatx/ops/cpu/kernel_arguments.h"
#include "qatx/ops/cpu/layout.h"

namespace qatx {
namespace {

using Functions = std::map<std::string, std::function<void()>>;

struct Case {
  at::Tensor x;
  at::Tensor g = at::randn(x.sizes());
  at::Tensor dx = at::empty_like(x);
  at::Tensor dscale = at::empty({}, at::kFloat);
  at::Tensor dzero_point = at::empty({}, at::kFloat);
  float scale = 3.0f / 127;
  float inv_scale = 1 / scale;
  float low = -128;
  float high = 127;
  const kernels::FakeQuantizeKernels<float>& kernels = fake_quantize_kernels<float>();

  void backward(int64_t first, int64_t n, float* scale_sum, float* outside_sum) const {
    kernels.backward_runs(g.const_data_ptr<float>() + first, x.const_data_ptr<float>() + first,
                          dx.mutable_data_ptr<float>() + first, 1, n,
                          {&scale, &inv_scale, &low, &high}, {false, nullptr}, scale_sum,
                          outside_sum);
  }

  void fixed_blocks() const {
    const Layout layout(x, {});
    Sums<float> scale_sums(layout, dscale, kernels.scale_sums);
    Sums<float> outside_sums(layout, dzero_point, kernels.scale_sums);
    layout.parallel<NoScratch>(true, [&](const Stretch& s, NoScratch&) {
      backward(s.offset, s.inner, scale_sums.part(s), outside_sums.part(s));
    });
    scale_sums.finish();
    outside_sums.finish();
  }

  void one_sum_a_thread() const {
    const int64_t threads = at::get_num_threads();
    std::vector<float> scale_sums(static_cast<size_t>(16 * threads));  // 16: no shared cache lines
    std::vector<float> outside_sums(scale_sums.size());
    at::parallel_for(0, x.numel(), (x.numel() + threads - 1) / threads,
                     [&](int64_t begin, int64_t end) {
                       const auto i = static_cast<size_t>(16 * at::get_thread_num());
                       backward(begin, end - begin, &scale_sums[i], &outside_sums[i]);
                     });
    float total_scale = 0;
    float total_outside = 0;
    for (size_t i = 0; i < scale_sums.size(); i += 16) {
      total_scale += scale_sums[i];
      total_outside += outside_sums[i];
    }
    dscale.fill_(total_scale);
    dzero_point.fill_(total_outside);
  }
};

// Seconds of each function, in turns whose order is shuffled.
std::map<std::string, std::vector<double>> interleaved(const Functions& functions, int rounds) {
  std::map<std::string, std::vector<double>> seconds;
  std::vector<std::string> order;
  for (const auto& [name, function] : functions) {
    order.push_back(name);
    function();
  }
  std::mt19937 random(0);
  for (int round = 0; round < rounds; ++round) {
    std::shuffle(order.begin(), order.end(), random);
    for (const std::string& name : order) {
      functions.at(name)();
      const auto begin = std::chrono::steady_clock::now();
      functions.at(name)();
      const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - begin;
      seconds[name].push_back(elapsed.count());
    }
  }
  return seconds;
}

void run(int rounds) {
  std::vector<std::string> cases;
  for (const int threads : {1, 2}) {
    at::set_num_threads(threads);
    for (const std::vector<int64_t>& shape :
         {std::vector<int64_t>{32, 32, 28, 28}, std::vector<int64_t>{64, 64, 56, 56}}) {
      const Case subject{.x = at::randn(shape)};
      const int64_t calls = subject.x.numel() > (1 << 22) ? rounds : 10 * rounds;
      const auto seconds = interleaved({{"fixed blocks", [&] { subject.fixed_blocks(); }},
                                        {"one sum a thread", [&] { subject.one_sum_a_thread(); }}},
                                       static_cast<int>(calls));
      std::vector<std::string> contenders;
      for (const auto& [name, times] : seconds) {
        contenders.push_back(fmt::format("\"{}\": [{}]", name, fmt::join(times, ", ")));
      }
      cases.push_back(fmt::format("{{\"threads\": {}, \"shape\": [{}], \"seconds\": {{{}}}}}",
                                  threads, fmt::join(shape, ", "), fmt::join(contenders, ", ")));
    }
  }
  fmt::print("[{}]\n", fmt::join(cases, ",\n "));
}

}  // namespace
}  // namespace qatx

int main(int argc, char** argv) {
  qatx::run(argc > 1 ? std::stoi(argv[1]) : 30);
  return 0;
}
