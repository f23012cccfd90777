#pragma once

#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/functions/utils.h>
#include <torch/csrc/autograd/saved_variable.h>

#include <memory>
#include <mutex>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

// Autograd for operators whose backward is an operator too. torch::autograd::Function would do the
// same, but torch.func refuses it.

namespace qatx {

using torch::autograd::variable_list;

// Backward: variable_list(const variable_list& saved, const at::Tensor& grad), a gradient for each
// input.
template <class Backward>
class BackwardNode : public torch::autograd::Node {
 public:
  BackwardNode(std::string name, const variable_list& saved, Backward backward)
      : name_(std::move(name)), backward_(std::move(backward)) {
    for (const at::Tensor& t : saved) saved_.emplace_back(t, /*is_output=*/false);
  }

  variable_list apply(variable_list&& grads) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    variable_list saved;
    for (const auto& t : saved_) saved.push_back(t.unpack());
    if (!grads.at(0).defined()) return variable_list(num_outputs());
    return backward_(saved, grads[0]);
  }

  std::string name() const override { return name_; }

  void release_variables() override {
    const std::lock_guard<std::mutex> lock(mutex_);
    for (auto& t : saved_) t.reset_data();
  }

 private:
  std::string name_;
  Backward backward_;
  std::vector<torch::autograd::SavedVariable> saved_;
};

// Older Torch counts the references to nodes with std::shared_ptr.
template <class Derived, class Pointer = decltype(torch::autograd::Edge::function), class... Args>
auto make_node(Args&&... args) {
  if constexpr (std::is_same_v<Pointer, std::shared_ptr<torch::autograd::Node>>) {
    return std::shared_ptr<Derived>(new Derived(std::forward<Args>(args)...),
                                    [](auto* node) { deleteNode(node); });
  } else {
    return c10::make_intrusive<Derived>(std::forward<Args>(args)...);
  }
}

// Whether one of the inputs of the operator `name` requires a gradient. A forward-mode derivative
// is an error, not a silent zero.
template <class... Tensors>
bool requires_gradient(const char* name, const Tensors&... inputs) {
  TORCH_CHECK_NOT_IMPLEMENTED(!(inputs._fw_grad(/*level=*/0).defined() || ...), name,
                              " has no forward-mode derivative (torch.func.jvp); take one in "
                              "reverse mode");
  return torch::autograd::compute_requires_grad(inputs...);
}

// Makes `output` the result of a function of `inputs` (undefined ones take no gradient), where one
// of them requires a gradient. `output` was computed below autograd.
template <class Backward>
void record_backward(const char* name, const at::Tensor& output, const variable_list& inputs,
                     const variable_list& saved, Backward backward) {
  auto node = make_node<BackwardNode<Backward>>(name, saved, std::move(backward));
  node->set_next_edges(torch::autograd::collect_next_edges(inputs));
  torch::autograd::set_history(output, node);
}

}  // namespace qatx
