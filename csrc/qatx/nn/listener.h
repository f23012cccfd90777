#pragma once

#include <ATen/core/Tensor.h>
#include <c10/macros/Export.h>
#include <c10/util/ArrayRef.h>
#include <torch/nn/module.h>

namespace qatx::nn {

// While one lives, the modules of qatx::nn that run on its thread tell it of each call: it is what
// tracing, calibration and verification see a model through, because LibTorch's modules have no
// forward hooks. Of several on one thread only the latest is told.
class C10_EXPORT Listener {
 public:
  Listener();
  virtual ~Listener();
  Listener(const Listener&) = delete;
  Listener& operator=(const Listener&) = delete;

  // A call begins; calls of submodules come before leave(). Where forward throws, leave() never
  // comes.
  virtual void enter(const torch::nn::Module& module, at::TensorList inputs);
  virtual void leave(const torch::nn::Module& module, const at::Tensor& output);

  // That of this thread, or nullptr.
  static Listener* active();

 private:
  Listener* outer_;
};

// forward(), told to the listener of this thread. What every module of qatx::nn wraps its forward
// in.
template <class Forward>
at::Tensor tell(const torch::nn::Module& module, at::TensorList inputs, const Forward& forward) {
  Listener* listener = Listener::active();
  if (!listener) return forward();
  listener->enter(module, inputs);
  at::Tensor output = forward();
  listener->leave(module, output);
  return output;
}

}  // namespace qatx::nn
