#pragma once

#include "qatx/nn/fake_quantize.h"

// Quantizers other than LSQ, as modules. Their options and states are those of FakeQuantize, whose
// holder takes them too:
//   FakeQuantize f(std::shared_ptr<FakeQuantizeImpl>(std::make_shared<PACTImpl>(options)));

namespace qatx::nn {

// Clips activations to [0, alpha] with a learned alpha (arXiv 1805.06085).
//
// For values that are not negative, such as those behind a ReLU; the spec is unsigned. Calibration
// starts alpha at the end of the range; PACT's authors use L2 regularization on it.
class C10_EXPORT PACTImpl : public FakeQuantizeImpl {
 public:
  explicit PACTImpl(FakeQuantizeOptions options_);

  // Parameter of shape scale_shape(), in place of scale. What is in use is learned_scale(alpha).
  at::Tensor alpha;

 protected:
  const char* class_name() const override { return "PACT"; }
  std::shared_ptr<FakeQuantizeImpl> make_alike() const override;
  void check_options() const override;
  void register_qparams() override;
  void reset_qparams() override;
  void set_range(const at::Tensor& low, const at::Tensor& high) override;
  at::Tensor quantize(const at::Tensor& x) override;
};
TORCH_MODULE(PACT);

// Quantizes with a moving average of the range seen in training (arXiv 1712.05877).
//
// Nothing is learned by an optimizer: in the state kTrain and in training mode every call first
// moves running_min and running_max, and with them scale and zero_point (all buffers). In
// evaluation mode and in the state kFrozen nothing moves.
class C10_EXPORT MovingAverageImpl : public FakeQuantizeImpl {
 public:
  explicit MovingAverageImpl(FakeQuantizeOptions options_);

  // The weight of the latest range: 1 for weights, whose range is known, 0.01 for activations.
  double averaging_constant;
  // Buffers shaped like scale: the range; from calibration at first.
  at::Tensor running_min;
  at::Tensor running_max;

 protected:
  const char* class_name() const override { return "MovingAverage"; }
  std::shared_ptr<FakeQuantizeImpl> make_alike() const override;
  void check_options() const override;
  void register_qparams() override;
  void reset_qparams() override;
  void set_range(const at::Tensor& low, const at::Tensor& high) override;
  at::Tensor quantize(const at::Tensor& x) override;
};
TORCH_MODULE(MovingAverage);

// DoReFa's weights: tanh, and uniform codes without a zero (arXiv 1606.06160).
//
// y = dorefa_weight(x) * max|x|: the largest weight of a channel keeps its magnitude, where the
// paper makes it 1, so that a layer works without the batch normalization behind it, and with one
// that is folded into the weight. The codes are the odd numbers from -(2^bits - 1) to 2^bits - 1,
// which fit 8 bits for up to 7 bits. Nothing is learned but the weight. The role is kWeight, the
// spec signed and symmetric.
class C10_EXPORT DoReFaImpl : public FakeQuantizeImpl {
 public:
  explicit DoReFaImpl(FakeQuantizeOptions options_);

 protected:
  const char* class_name() const override { return "DoReFa"; }
  std::shared_ptr<FakeQuantizeImpl> make_alike() const override;
  void check_options() const override;
  void register_qparams() override {}
  void reset_qparams() override {}
  void set_range(const at::Tensor&, const at::Tensor&) override {}  // the weight says it
  at::Tensor quantize(const at::Tensor& x) override;
};
TORCH_MODULE(DoReFa);

}  // namespace qatx::nn
