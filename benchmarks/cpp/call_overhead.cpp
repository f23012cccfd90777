// Calls one operator over and over on 16 elements, for benchmarks/call_overhead.py, which counts
// the instructions.
//   call_overhead CASE CALLS     CASE: add, fake_quantize, add_autograd or fake_quantize_autograd

#include <ATen/Parallel.h>
#include <ATen/ops/add.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/custom_function.h>

#include <cstdio>
#include <functional>
#include <map>
#include <string>

#include "qatx/ops/fake_quantize.h"

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// What a C++ autograd function costs that does nothing but an addition.
struct Add : torch::autograd::Function<Add> {
  static at::Tensor forward(AutogradContext*, const at::Tensor& a, const at::Tensor& b) {
    return at::add(a, b);
  }
  static variable_list backward(AutogradContext*, const variable_list& grads) {
    return {grads[0], grads[0]};
  }
};

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  at::set_num_threads(1);
  const std::string name = argv[1];
  const bool gradient = name.ends_with("_autograd");
  const at::Tensor x = at::ones({16}).requires_grad_(gradient);
  const at::Tensor y = at::ones({16}).requires_grad_(gradient);
  const at::Tensor scale = at::full({}, 0.5f).requires_grad_(gradient);
  const at::Tensor zero_point = at::zeros({});
  const std::map<std::string, std::function<at::Tensor()>> cases{
      {"add", [&] { return at::add(x, y); }},
      {"add_autograd", [&] { return Add::apply(x, y); }},
      {"fake_quantize", [&] { return qatx::fake_quantize(x, scale, zero_point, -128, 127); }},
      {"fake_quantize_autograd",
       [&] { return qatx::fake_quantize(x, scale, zero_point, -128, 127); }},
  };
  const auto& call = cases.at(name);
  for (int i = std::stoi(argv[2]); i > 0; --i) call();
}
