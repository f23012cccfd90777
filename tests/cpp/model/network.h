#pragma once

#include <torch/nn/modules.h>

#include "qatx/nn/combine.h"

// A float network with all that qatx::prepare has to tell apart, written as its documentation says.

namespace qatx::testing {

struct BlockImpl : torch::nn::Module {
  BlockImpl(int64_t in, int64_t out)
      : body(torch::nn::Conv2d(torch::nn::Conv2dOptions(in, out, 3).padding(1).bias(false)),
             torch::nn::BatchNorm2d(out), torch::nn::ReLU(),
             torch::nn::Conv2d(torch::nn::Conv2dOptions(out, out, 3).padding(1)),
             torch::nn::BatchNorm2d(out)),
        shortcut(torch::nn::Conv2d(torch::nn::Conv2dOptions(in, out, 1))),
        add(nn::AddOptions().relu(nn::Relu::kRelu).quantize_output(false)) {
    register_module("body", body);
    register_module("shortcut", shortcut);
    register_module("add", add);
  }
  at::Tensor forward(const at::Tensor& x) {
    // One after the other: the order of evaluation of arguments is the compiler's.
    const at::Tensor y = body->forward(x);
    return add->forward(y, shortcut->forward(x));
  }

  torch::nn::Sequential body;
  torch::nn::Sequential shortcut;
  nn::Add add;
};
TORCH_MODULE(Block);

struct NetworkImpl : torch::nn::Module {
  NetworkImpl()
      : stub(nn::QuantStubOptions().quantize_output(false)),
        stem(torch::nn::Conv2d(torch::nn::Conv2dOptions(3, 8, 3).padding(1)), torch::nn::ReLU6(),
             torch::nn::MaxPool2d(2)),
        blocks(Block(8, 8), Block(8, 12)),
        pooled(nn::QuantStubOptions().quantize_output(false)),
        head(torch::nn::Flatten(), torch::nn::Dropout(), torch::nn::Linear(12, 5)) {
    register_module("stub", stub);
    register_module("stem", stem);
    register_module("blocks", blocks);
    register_module("pooled", pooled);
    register_module("head", head);
  }
  at::Tensor forward(const at::Tensor& x) {
    at::Tensor y = stem->forward(stub->forward(x));
    for (const auto& block : *blocks) y = block->as<Block>()->forward(y);
    return head->forward(pooled->forward(at::adaptive_avg_pool2d(y, {1, 1})));
  }

  nn::QuantStub stub;
  torch::nn::Sequential stem;
  torch::nn::ModuleList blocks;
  nn::QuantStub pooled;
  torch::nn::Sequential head;
};
TORCH_MODULE(Network);

}  // namespace qatx::testing
