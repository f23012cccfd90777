// Calls a qatx operator, then runs a converted model on ones of shape [1, 3, 8, 8] and prints what
// comes out.
//   consumer MODEL

#include <qatx/qatx.h>
#include <torch/script.h>

#include <iomanip>
#include <iostream>

int main(int, char** argv) {
  const at::Tensor quantized = qatx::fake_quantize(torch::full({2}, 0.9f), torch::tensor({0.5f}),
                                                   torch::tensor({0.0f}), -128, 127);
  TORCH_CHECK(torch::equal(quantized, torch::ones({2})), "fake_quantize gives ", quantized);

  torch::jit::Module model = torch::jit::load(argv[1]);
  const at::Tensor output = model.forward({torch::ones({1, 3, 8, 8})}).toTensor().contiguous();
  std::cout << std::setprecision(17);  // exact
  for (int64_t i = 0; i < output.numel(); ++i) std::cout << output.data_ptr<float>()[i] << "\n";
}
