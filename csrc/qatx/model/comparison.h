#pragma once

#include <ATen/core/Tensor.h>
#include <c10/macros/Export.h>
#include <torch/csrc/jit/api/module.h>

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "qatx/model/verification.h"

namespace qatx {

// What qatx::verify does, in C++ and in Python, with what a trained model makes: compares it, batch
// by batch, with what the converted model makes of the same inputs.
class C10_EXPORT Comparison {
 public:
  // Paths of the activations' fake quantizers, and what these returned, in the order of the calls.
  using Values = std::vector<std::pair<std::string, at::Tensor>>;

  explicit Comparison(torch::jit::Module converted) : converted_(std::move(converted)) {}

  // outputs: all tensors that the trained model returned.
  void add(const std::vector<at::Tensor>& inputs, const Values& values,
           const std::vector<at::Tensor>& outputs);
  // Throws c10::Error (ValueError) where nothing was added.
  Verification finish() const;

 private:
  // Sums over batches.
  struct Total {
    int64_t elements = 0;
    int64_t different = 0;
    int64_t largest = 0;
    double signal = 0.0;
    double noise = 0.0;

    void add(const at::Tensor& expected, const at::Tensor& actual, double scale);
    double sqnr() const;
  };

  torch::jit::Module converted_;
  std::vector<std::string> order_;  // of the names in totals_
  std::map<std::string, Total> totals_;
  Total outputs_;
  int64_t batches_ = 0;
};

// All tensors of an output, one after the other.
C10_EXPORT std::vector<at::Tensor> tensors_in(const c10::IValue& output);

}  // namespace qatx
