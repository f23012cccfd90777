#pragma once

#include <torch/csrc/jit/api/module.h>

#include <functional>
#include <vector>

#include "qatx/model/model.h"
#include "qatx/nn/listener.h"

namespace qatx {

// What torch.jit.trace does in Python: runs the model in evaluation mode and writes down what it
// does. Parameters and buffers are attributes of the result, which shares them, under the paths
// that they have in the model; the operators of qatx::nn's modules know the paths of these.
C10_EXPORT torch::jit::Module trace(const Model& model, const std::vector<at::Tensor>& inputs);

namespace detail {

// Sets the scope of what is traced on this thread to the path of the module that runs.
class Tracing : public nn::Listener {
 public:
  explicit Tracing(const ModulePaths& paths) : paths_(paths) {}
  void enter(const torch::nn::Module& module, at::TensorList inputs) override;
  void leave(const torch::nn::Module& module, const at::Tensor& output) override;

 private:
  const ModulePaths& paths_;
  std::vector<c10::intrusive_ptr<torch::jit::Scope>> outer_;
};

// The graph, with what its parameters are attributes of, while `listener` listens.
torch::jit::Module trace(const Model& model, const std::vector<at::Tensor>& inputs,
                         const std::function<std::unique_ptr<Tracing>()>& listen);

}  // namespace detail
}  // namespace qatx
