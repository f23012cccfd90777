#pragma once

#include <qatx/qatx.h>
#include <torch/nn.h>

#include <array>

// The demo's network: a small residual CNN of plain torch::nn modules, that of
// examples/python/fashion_mnist_model.py. Where values enter and meet it has layers of qatx::nn,
// which are plain float operators until qatx::prepare.

// Convolution that keeps the size at stride 1, and its batch normalization, behind those that are
// there.
inline void add_conv_bn(torch::nn::Sequential& layers, int64_t in, int64_t out, int64_t kernel,
                        int64_t stride = 1, int64_t groups = 1) {
  layers->push_back(torch::nn::Conv2d(torch::nn::Conv2dOptions(in, out, kernel)
                                          .stride(stride)
                                          .padding(kernel / 2)
                                          .groups(groups)
                                          .bias(false)));
  layers->push_back(torch::nn::BatchNorm2d(out));
}

// Two 3 x 3 convolutions beside a 1 x 1 shortcut: [N, Cin, H, W] to [N, Cout, H/s, W/s].
struct ResidualBlockImpl : torch::nn::Module {
  ResidualBlockImpl(int64_t in, int64_t out, int64_t stride)
      : add(qatx::nn::AddOptions().relu(qatx::nn::Relu::kRelu).quantize_output(false)) {
    add_conv_bn(body, in, out, 3, stride);
    body->push_back(torch::nn::ReLU());
    add_conv_bn(body, out, out, 3);
    add_conv_bn(shortcut, in, out, 1, stride);
    register_module("body", body);
    register_module("shortcut", shortcut);
    register_module("add", add);
  }

  torch::Tensor forward(const torch::Tensor& x) {
    // One after the other: the order of evaluation of arguments is the compiler's.
    const torch::Tensor y = body->forward(x);
    return add->forward(y, shortcut->forward(x));
  }

  torch::nn::Sequential body;
  torch::nn::Sequential shortcut;
  qatx::nn::Add add;
};
TORCH_MODULE(ResidualBlock);

// Stem, three residual stages, a depthwise-separable block, average pooling, classifier: float32
// [N, 1, 28, 28] to scores [N, 10].
struct SmallResNetImpl : torch::nn::Module {
  explicit SmallResNetImpl(const std::array<int64_t, 4>& widths = {16, 32, 96, 192})
      : input(qatx::nn::QuantStubOptions().quantize_output(false)),
        pooled(qatx::nn::QuantStubOptions().quantize_output(false)) {
    const auto [first, second, third, last] = widths;
    add_conv_bn(stem, 1, first, 3);
    stem->push_back(torch::nn::ReLU());
    stages->push_back(ResidualBlock(first, second, 2));
    stages->push_back(ResidualBlock(second, third, 2));
    stages->push_back(ResidualBlock(third, last, 2));
    add_conv_bn(separable, last, last, 3, 1, last);
    separable->push_back(torch::nn::ReLU());
    add_conv_bn(separable, last, last, 1);
    separable->push_back(torch::nn::ReLU());
    separable->push_back(torch::nn::AdaptiveAvgPool2d(1));
    separable->push_back(torch::nn::Flatten());
    classifier->push_back(torch::nn::Linear(last, 10));
    register_module("input", input);
    register_module("stem", stem);
    register_module("stages", stages);
    register_module("separable", separable);
    register_module("pooled", pooled);
    register_module("classifier", classifier);
  }

  torch::Tensor forward(const torch::Tensor& x) {
    const torch::Tensor features = stages->forward(stem->forward(input->forward(x)));
    return classifier->forward(pooled->forward(separable->forward(features)));
  }

  qatx::nn::QuantStub input;
  torch::nn::Sequential stem;
  torch::nn::Sequential stages;
  torch::nn::Sequential separable;
  qatx::nn::QuantStub pooled;
  torch::nn::Sequential classifier;
};
TORCH_MODULE(SmallResNet);
