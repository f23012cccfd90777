// One side of the benchmark cpp_step.py: a training step for each line "step" that comes in, and
// for "memory" the most bytes that the process had, beyond what it had before there was a model.
//   train_step THREADS BATCH

#include <torch/optim/sgd.h>

#include <fstream>
#include <iostream>
#include <string>

#include "../../examples/cpp/fashion_mnist_model.h"

namespace {

// VmHWM of this process, in bytes.
int64_t peak_bytes() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("VmHWM:")) return 1024 * std::stoll(line.substr(6));
  }
  return 0;
}

}  // namespace

int main(int, char** argv) {
  torch::set_num_threads(std::stoi(argv[1]));
  torch::manual_seed(0);
  const int64_t before = peak_bytes();
  const torch::Tensor images = torch::randn({std::stoll(argv[2]), 1, 28, 28});
  const torch::Tensor labels = torch::randint(10, {images.size(0)}, torch::kLong);
  SmallResNet model;
  qatx::prepare(model, {images.slice(0, 0, 1)});
  {
    // Noise will do here.
    struct Silent : c10::WarningHandler {
      void process(const c10::Warning&) override {}
    } silent;
    const c10::WarningUtils::WarningHandlerGuard guard(&silent);
    qatx::calibrate(model, images);
  }
  auto optimizer = qatx::make_optimizer<torch::optim::SGD>(
      *model, torch::optim::SGDOptions(0.001).momentum(0.9).weight_decay(1e-4));
  model->train();
  std::cout << "ready" << std::endl;
  for (std::string line; std::getline(std::cin, line);) {
    if (line == "memory") {
      std::cout << peak_bytes() - before << std::endl;
      continue;
    }
    const torch::Tensor loss = torch::nn::functional::cross_entropy(model->forward(images), labels);
    optimizer.zero_grad();
    loss.backward();
    optimizer.step();
    std::cout << loss.item<float>() << std::endl;
  }
}
