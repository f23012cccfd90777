// Calls a qatx operator. With a MODEL, runs it on ones of shape [1, 3, 8, 8] and prints what comes
// out; otherwise makes one, from a float network to integers.
//   consumer [MODEL]

#include <qatx/qatx.h>
#include <torch/nn.h>
#include <torch/script.h>

#include <iomanip>
#include <iostream>

torch::jit::Module make_model() {
  torch::nn::Sequential net(
      qatx::nn::QuantStub(qatx::nn::QuantStubOptions().quantize_output(false)),
      torch::nn::Conv2d(torch::nn::Conv2dOptions(3, 4, 3)), torch::nn::ReLU());
  const at::Tensor images = torch::linspace(-1, 1, 128 * 3 * 8 * 8).reshape({128, 3, 8, 8});
  qatx::prepare(net, {images});
  qatx::calibrate(net, images);
  const auto [converted, report] = qatx::convert(net, {images});
  TORCH_CHECK(qatx::integer_share_of_macs(report) == 1.0, "not all in integers");
  const qatx::Verification verification = qatx::verify(net, converted, images);
  TORCH_CHECK(verification.ok(), verification.verdict());
  return converted;
}

int main(int argc, char** argv) {
  const at::Tensor quantized = qatx::fake_quantize(torch::full({2}, 0.9f), torch::tensor({0.5f}),
                                                   torch::tensor({0.0f}), -128, 127);
  TORCH_CHECK(torch::equal(quantized, torch::ones({2})), "fake_quantize gives ", quantized);

  torch::jit::Module model = argc > 1 ? torch::jit::load(argv[1]) : make_model();
  const at::Tensor output = model.forward({torch::ones({1, 3, 8, 8})}).toTensor().contiguous();
  std::cout << std::setprecision(17);  // exact
  for (int64_t i = 0; i < output.numel(); ++i) std::cout << output.data_ptr<float>()[i] << "\n";
}
