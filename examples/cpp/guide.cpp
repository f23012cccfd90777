// The guide's example (docs/cpp.md): from a float network to a file with integers.

#include <qatx/qatx.h>
#include <torch/script.h>
#include <torch/torch.h>

#include <iostream>

int main() {
  torch::manual_seed(0);

  // A float network. What comes in goes through a QuantStub, which does nothing yet.
  torch::nn::Sequential model(
      qatx::nn::QuantStub(qatx::nn::QuantStubOptions().quantize_output(false)),
      torch::nn::Conv2d(torch::nn::Conv2dOptions(1, 8, 3).padding(1)), torch::nn::BatchNorm2d(8),
      torch::nn::ReLU(), torch::nn::MaxPool2d(2), torch::nn::Flatten(),
      torch::nn::Linear(8 * 4 * 4, 2));
  // Images that get brighter to the right (class 0) or downwards (class 1).
  const torch::Tensor ramp = torch::linspace(-1, 1, 8);
  const torch::Tensor labels = torch::randint(2, {256}, torch::kLong);
  const torch::Tensor sides = labels.reshape({-1, 1, 1, 1}) == 0;
  const torch::Tensor images = torch::where(sides, ramp, ramp.unsqueeze(1)).expand({256, 1, 8, 8}) +
                               0.2 * torch::randn({256, 1, 8, 8});

  // Layers of torch::nn become layers of qatx::nn; then all scales are set from data.
  qatx::prepare(model, {images.slice(0, 0, 1)});
  std::cout << qatx::calibrate(model, images);

  // Training as ever. Scales are parameters; weight decay is for weights only.
  const auto options = torch::optim::SGDOptions(0.05).momentum(0.9).weight_decay(1e-4);
  auto optimizer = qatx::make_optimizer<torch::optim::SGD>(*model, options);
  model->train();
  for (int step = 0; step < 50; ++step) {
    const torch::Tensor loss = torch::nn::functional::cross_entropy(model->forward(images), labels);
    optimizer.zero_grad();
    loss.backward();
    optimizer.step();
  }

  // Integers. The report says what became of each operator.
  auto [converted, report] = qatx::convert(model, {images.slice(0, 0, 1)});
  std::cout << report << qatx::verify(model, converted, images).verdict() << "\n";
  converted.save("model.pt");

  // Anywhere, with LibTorch and libqatx: the header keeps the library linked.
  torch::jit::Module loaded = torch::jit::load("model.pt");
  const torch::Tensor classes = loaded.forward({images}).toTensor().argmax(1);
  std::cout << "accuracy " << classes.eq(labels).to(torch::kFloat).mean().item<float>() << "\n";
}
