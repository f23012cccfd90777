#pragma once

#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>
#include <c10/macros/Export.h>
#include <torch/arg.h>
#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <ostream>
#include <string>
#include <vector>

#include "qatx/core/quant_spec.h"
#include "qatx/observers/observer.h"

namespace qatx::nn {

// Decides how many elements count as sharing the scale in LSQ's gradient scale; the first dimension
// of an activation is the batch.
enum class Role { kWeight, kActivation };

// What a FakeQuantize does when it is called.
enum class State : uint8_t {
  kUncalibrated,  // there is no scale yet: an error
  kCalibrate,     // passes its input through and observes it
  kTrain,         // quantizes; what the quantizer learns is learned
  kFrozen,        // quantizes; scale and zero point stay
};

// Options of FakeQuantize and the other quantizers.
struct C10_EXPORT FakeQuantizeOptions {
  FakeQuantizeOptions(QuantSpec spec, Role role) : spec_(spec), role_(role) {}

  // Bits, sign, symmetry, axis and groups.
  TORCH_ARG(QuantSpec, spec);
  TORCH_ARG(Role, role);
  // {} where spec has no axis, {channels} where it has one, and spec.scale_shape(x.sizes()) where
  // there are groups.
  TORCH_ARG(std::vector<int64_t>, scale_shape) = {};
  // Whether scale and zero point are trained.
  TORCH_ARG(bool, learn_scale) = true;
  // How finish_calibration() chooses the range, where it is not told otherwise; one of
  // range_method_names().
  TORCH_ARG(std::string, range_method) = "min_max";
  // Use the power of two nearest to the scale (arXiv 1903.08066).
  TORCH_ARG(bool, power_of_two) = false;
  // Round stochastically in training, to nearest in evaluation.
  TORCH_ARG(bool, stochastic_rounding) = false;
  // Let gradients of the input through outside the range too.
  TORCH_ARG(bool, pass_through) = false;
};

// Rounds a tensor to the values that its integer codes stand for, with a learned scale (LSQ, arXiv
// 1902.08153). Where the spec is asymmetric, the zero point is learned too (LSQ+, arXiv
// 2004.09576). The other quantizers (nn/quantizers.h) are derived from it.
//
// Nothing but the state kCalibrate and an optimizer ever changes a scale, in training or in
// evaluation mode. All parameters and buffers have their final shape from construction, so that an
// optimizer may be made and a state loaded at any time; torch::save keeps the state.
class C10_EXPORT FakeQuantizeImpl : public torch::nn::Module {
 public:
  // Makes an uncalibrated module. Throws c10::Error (ValueError) where the options do not go
  // together.
  explicit FakeQuantizeImpl(FakeQuantizeOptions options_);

  // x: floating point, any shape; float64 takes a module that was converted to it (to(kDouble)),
  // all else one in float32. Returns a tensor like x (in the state kCalibrate: x itself). Throws
  // c10::Error where the module is not calibrated, or x has another dtype or number of channels.
  at::Tensor forward(const at::Tensor& x);

  State state() const { return state_; }
  // Whether there are scales to quantize with.
  bool is_calibrated() const { return state_ == State::kTrain || state_ == State::kFrozen; }
  const std::vector<int64_t>& scale_shape() const { return options.scale_shape(); }

  // Goes back to the state kUncalibrated, with nothing observed.
  void reset_parameters();
  // Goes to the state kCalibrate, with nothing observed.
  void begin_calibration();
  // Sets scale and zero point from what was seen and goes to the state kTrain.
  //
  // - method: how to choose the range; nullopt: options.range_method().
  // - percentile: of "percentile"; more than 50, at most 100.
  // - norm: the power of the error that "mse" minimizes; 1 to 10.
  //
  // Returns the range that was chosen. Throws c10::Error where a channel has no finite value among
  // those observed, or an argument is out of range; nothing is changed then.
  ChosenRange finish_calibration(std::optional<std::string> method = std::nullopt,
                                 double percentile = 99.99, double norm = 2.0);
  // Goes to the state kFrozen. Throws c10::Error where the module is not calibrated.
  void freeze();
  // Goes from kFrozen back to kTrain. Throws like freeze().
  void unfreeze();

  // The state, as Python's state_dict has it under the same name (_extra_state): uint8; with what
  // was observed, as bytes, while calibrating.
  at::Tensor extra_state() const;
  // Throws c10::Error (ValueError) where it holds no state.
  void set_extra_state(const at::Tensor& state);

  std::shared_ptr<torch::nn::Module> clone(
      const std::optional<torch::Device>& device = std::nullopt) const override;
  void save(torch::serialize::OutputArchive& archive) const override;
  void load(torch::serialize::InputArchive& archive) override;
  void pretty_print(std::ostream& stream) const override;

  FakeQuantizeOptions options;
  // Parameter of shape scale_shape(), float32. What is in use is learned_scale(scale), which no
  // optimizer step can make zero, negative or NaN. Undefined in quantizers that have none.
  at::Tensor scale;
  // In codes, float32, shaped like scale; rounded where it is used. A parameter where the spec is
  // asymmetric (in use is learned_zero_point(zero_point)), otherwise a buffer.
  at::Tensor zero_point;
  // Where the seeds of stochastic rounding come from; nullopt: LibTorch's own.
  std::optional<at::Generator> generator;

  // What an activation was seen to be, in the state kCalibrate; otherwise nullopt.
  const std::optional<Observer>& observer() const { return observer_; }
  std::optional<Observer>& observer() { return observer_; }
  // The weight that was seen last, in the state kCalibrate, whose range is wanted; otherwise, and
  // for activations, undefined.
  const at::Tensor& last_weight() const { return last_weight_; }

 protected:
  // For derived classes, whose constructors call init().
  struct Uninitialized {};
  FakeQuantizeImpl(FakeQuantizeOptions options_, Uninitialized);
  void init();

  // ---- What quantizers differ in ----

  virtual const char* class_name() const { return "FakeQuantize"; }
  // A module with the same options, uncalibrated.
  virtual std::shared_ptr<FakeQuantizeImpl> make_alike() const;
  // Throws c10::Error (ValueError) where the quantizer does not do what the options say.
  virtual void check_options() const {}
  virtual void register_qparams();
  virtual void reset_qparams();
  // Sets scale and zero point from a range: float64 tensors of scale_shape().
  virtual void set_range(const at::Tensor& low, const at::Tensor& high);
  virtual at::Tensor quantize(const at::Tensor& x);

  // ---- Shared ----

  // Throws c10::Error (ValueError) where power_of_two, stochastic_rounding or pass_through is set.
  void check_plain_rounding() const;
  at::Tensor empty_qparam() const;
  at::Tensor fake_quantize(const at::Tensor& x, at::Tensor scale_in_use,
                           const at::Tensor& zero_point_in_use, double grad_scale = 1.0);

 private:
  void clone_(torch::nn::Module& other, const std::optional<torch::Device>& device) override;
  void copy_from(const FakeQuantizeImpl& other, const std::optional<torch::Device>& device);
  void check_calibrated() const;
  void set_state(State state);
  void observe(const at::Tensor& x);
  double grad_scale(const at::Tensor& x) const;

  State state_ = State::kUncalibrated;
  std::optional<Observer> observer_;
  at::Tensor last_weight_;
};
TORCH_MODULE(FakeQuantize);

}  // namespace qatx::nn
