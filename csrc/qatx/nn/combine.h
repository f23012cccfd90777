#pragma once

#include <torch/nn/cloneable.h>

#include <vector>

#include "qatx/nn/layer.h"

// Layers without a weight: where values enter the quantized part of a model, and where they meet.
// With quantize_output(false) they are plain float operators, for a model that qatx::prepare will
// take.

namespace qatx::nn {

struct C10_EXPORT QuantStubOptions : LayerOptions<QuantStubOptions> {};
struct C10_EXPORT AddOptions : LayerOptions<AddOptions> {};
struct C10_EXPORT MulOptions : LayerOptions<MulOptions> {};
struct C10_EXPORT CatOptions : LayerOptions<CatOptions> {
  // The dimension along which tensors are put together.
  TORCH_ARG(int64_t, dim) = 1;
};

namespace detail {

template <class Derived>
class C10_EXPORT CombineImpl : public torch::nn::Cloneable<Derived>, public QuantizedLayer {
 public:
  explicit CombineImpl(const LayerSettings& settings_) : QuantizedLayer(settings_) {
    register_output();
  }
  void reset() override { register_output(); }
};

}  // namespace detail

// Quantizes a value that no layer of qatx::nn makes: the model's input, or what an average pooling
// or an activation function returns.
class C10_EXPORT QuantStubImpl : public detail::CombineImpl<QuantStubImpl> {
 public:
  explicit QuantStubImpl(const QuantStubOptions& options_ = {})
      : CombineImpl(options_.settings()) {}
  // Takes and returns float32, any shape.
  at::Tensor forward(const at::Tensor& x);
  void pretty_print(std::ostream& stream) const override;
};
TORCH_MODULE(QuantStub);

// a + b, then an optional ReLU, then a quantized output.
//
// One operand may be the output of a convolution or linear layer that is not quantized: the
// converter then adds inside that layer, before its one rounding. The other should be quantized
// already.
class C10_EXPORT AddImpl : public detail::CombineImpl<AddImpl> {
 public:
  explicit AddImpl(const AddOptions& options_ = {}) : CombineImpl(options_.settings()) {}
  // Takes two float32 tensors of one shape.
  at::Tensor forward(const at::Tensor& a, const at::Tensor& b);
  void pretty_print(std::ostream& stream) const override;
};
TORCH_MODULE(Add);

// a * b, then an optional ReLU, then a quantized output. Both should be quantized already.
class C10_EXPORT MulImpl : public detail::CombineImpl<MulImpl> {
 public:
  explicit MulImpl(const MulOptions& options_ = {}) : CombineImpl(options_.settings()) {}
  // Takes two float32 tensors whose shapes broadcast.
  at::Tensor forward(const at::Tensor& a, const at::Tensor& b);
  void pretty_print(std::ostream& stream) const override;
};
TORCH_MODULE(Mul);

// Puts tensors together along options.dim(). What goes into one tensor shares one scale: each part
// is quantized with it, after an optional ReLU, so the parts may come in float.
class C10_EXPORT CatImpl : public detail::CombineImpl<CatImpl> {
 public:
  explicit CatImpl(const CatOptions& options_ = {})
      : CombineImpl(options_.settings()), options(options_) {}
  // Takes at least one float32 tensor.
  at::Tensor forward(std::vector<at::Tensor> tensors);
  void pretty_print(std::ostream& stream) const override;

  CatOptions options;
};
TORCH_MODULE(Cat);

}  // namespace qatx::nn
