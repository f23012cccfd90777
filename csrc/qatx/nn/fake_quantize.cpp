#include "qatx/nn/fake_quantize.h"

#include <ATen/ATen.h>
#include <torch/serialize/archive.h>

#include <algorithm>
#include <cmath>
#include <sstream>

#include "qatx/core/qparams.h"
#include "qatx/nn/listener.h"
#include "qatx/ops/fake_quantize.h"
#include "qatx/ops/learned_zero_point.h"
#include "qatx/ops/scales.h"

namespace qatx::nn {
namespace {

constexpr const char* kExtraState = "_extra_state";  // the key of Python's state_dict
constexpr const char* kStateNames[] = {"uncalibrated", "calibrate", "train", "frozen"};
constexpr int64_t kStateCount = 4;

}  // namespace

FakeQuantizeImpl::FakeQuantizeImpl(FakeQuantizeOptions options_)
    : FakeQuantizeImpl(std::move(options_), Uninitialized{}) {
  init();
}

FakeQuantizeImpl::FakeQuantizeImpl(FakeQuantizeOptions options_, Uninitialized)
    : torch::nn::Module("FakeQuantize"), options(std::move(options_)) {}

void FakeQuantizeImpl::init() {
  const QuantSpec& spec = options.spec();
  const at::IntArrayRef shape = options.scale_shape();
  check_range_method("FakeQuantize", "range_method", options.range_method());
  check_options();
  TORCH_CHECK_VALUE(spec.axis() || shape.empty(),
                    "FakeQuantize: scale_shape must be () (one scale for the tensor) for ",
                    spec.repr(), ", got ", shape);
  TORCH_CHECK_VALUE(!spec.axis() || (!shape.empty() && (spec.group_size() || shape.size() == 1)),
                    "FakeQuantize: scale_shape must be ",
                    spec.group_size() ? "spec.scale_shape(x.shape)" : "(channels,)", " for ",
                    spec.repr(), ", got ", shape);
  register_qparams();
  reset_parameters();
}

at::Tensor FakeQuantizeImpl::forward(const at::Tensor& x) {
  return tell(*this, x, [&] {
    if (state_ == State::kCalibrate) {
      observe(x.detach());
      return x;
    }
    check_calibrated();
    return quantize(x);
  });
}

void FakeQuantizeImpl::reset_parameters() {
  const at::NoGradGuard no_grad;
  reset_qparams();
  set_state(State::kUncalibrated);
}

void FakeQuantizeImpl::begin_calibration() {
  reset_parameters();
  set_state(State::kCalibrate);
}

ChosenRange FakeQuantizeImpl::finish_calibration(std::optional<std::string> method,
                                                 double percentile, double norm) {
  const at::NoGradGuard no_grad;
  const std::string& chosen = method ? *method : options.range_method();
  const auto choose = [&] {
    if (last_weight_.defined()) {
      return Observer::choose_for(last_weight_.cpu(), options.spec(), chosen, percentile, norm);
    }
    // Without an observer nothing was seen, which is an error of choose().
    return (observer_ ? *observer_ : Observer(options.spec(), scale_shape(), 16))
        .choose(options.spec(), chosen, percentile, norm);
  };
  ChosenRange range = choose();
  set_range(range.low, range.high);
  set_state(State::kTrain);
  return range;
}

void FakeQuantizeImpl::freeze() {
  check_calibrated();
  set_state(State::kFrozen);
}

void FakeQuantizeImpl::unfreeze() {
  check_calibrated();
  set_state(State::kTrain);
}

at::Tensor FakeQuantizeImpl::extra_state() const {
  const at::Tensor state = at::scalar_tensor(static_cast<int64_t>(state_), at::kByte);
  if (!observer_) return state;
  return at::cat({state.reshape({1}), observer_->state().flatten().view(at::kByte)});
}

void FakeQuantizeImpl::set_extra_state(const at::Tensor& state) {
  TORCH_CHECK_VALUE(state.scalar_type() == at::kByte && state.numel() > 0,
                    "FakeQuantize: the state must be uint8 with at least one element, got ",
                    state.toString(), " of sizes ", state.sizes());
  const at::Tensor content = state.cpu().flatten();
  const auto index = content[0].item<int64_t>();
  TORCH_CHECK_VALUE(index < kStateCount, "FakeQuantize: the state dict holds the unknown state ",
                    index);
  set_state(static_cast<State>(index));
  if (!observer_) return;
  const at::Tensor words = content.slice(0, 1).clone();  // aligned
  const at::IntArrayRef shape = observer_->state().sizes();
  const int64_t bytes = 8 * observer_->state().numel();
  TORCH_CHECK_VALUE(words.numel() == bytes, "FakeQuantize: the state dict must hold ", bytes,
                    " observed bytes, got ", words.numel());
  observer_->set_state(words.view(at::kLong).reshape(shape));
}

std::shared_ptr<torch::nn::Module> FakeQuantizeImpl::clone(
    const std::optional<torch::Device>& device) const {
  const std::shared_ptr<FakeQuantizeImpl> copy = make_alike();
  copy->copy_from(*this, device);
  return copy;
}

void FakeQuantizeImpl::clone_(torch::nn::Module& other,
                              const std::optional<torch::Device>& device) {
  const auto* source = other.as<FakeQuantizeImpl>();
  TORCH_CHECK(source, "FakeQuantize: cannot clone a module of another type");
  copy_from(*source, device);
}

void FakeQuantizeImpl::copy_from(const FakeQuantizeImpl& other,
                                 const std::optional<torch::Device>& device) {
  const at::NoGradGuard no_grad;
  const auto copy = [&](const at::Tensor& t) {
    return device && t.device() != *device ? t.to(*device) : t.clone();
  };
  for (const auto& item : other.named_parameters(/*recurse=*/false)) {
    parameters_[item.key()].set_data(copy(item.value()));
  }
  auto own = named_buffers(/*recurse=*/false);
  for (const auto& item : other.named_buffers(/*recurse=*/false)) {
    own[item.key()].set_data(copy(item.value()));
  }
  train(other.is_training());
  set_extra_state(other.extra_state());
  last_weight_ = other.last_weight_;
  generator = other.generator;
}

void FakeQuantizeImpl::save(torch::serialize::OutputArchive& archive) const {
  torch::nn::Module::save(archive);
  archive.write(kExtraState, extra_state(), /*is_buffer=*/true);
}

void FakeQuantizeImpl::load(torch::serialize::InputArchive& archive) {
  torch::nn::Module::load(archive);
  at::Tensor state;
  archive.read(kExtraState, state, /*is_buffer=*/true);
  set_extra_state(state);
}

void FakeQuantizeImpl::pretty_print(std::ostream& stream) const {
  stream << "qatx::nn::" << class_name() << '(' << options.spec().repr()
         << ", role=" << (options.role() == Role::kWeight ? "weight" : "activation")
         << ", learn_scale=" << std::boolalpha << options.learn_scale();
  if (options.power_of_two()) stream << ", power_of_two=true";
  if (options.stochastic_rounding()) stream << ", stochastic_rounding=true";
  if (options.pass_through()) stream << ", pass_through=true";
  stream << ", state=" << kStateNames[static_cast<size_t>(state_)] << ')';
}

std::shared_ptr<FakeQuantizeImpl> FakeQuantizeImpl::make_alike() const {
  return std::make_shared<FakeQuantizeImpl>(options);
}

void FakeQuantizeImpl::register_qparams() {
  scale = register_parameter("scale", empty_qparam());
  zero_point = options.spec().symmetric() ? register_buffer("zero_point", empty_qparam())
                                          : register_parameter("zero_point", empty_qparam());
}

void FakeQuantizeImpl::reset_qparams() {
  scale.fill_(1.0);
  zero_point.zero_();
}

void FakeQuantizeImpl::set_range(const at::Tensor& low, const at::Tensor& high) {
  const auto [new_scale, new_zero_point] =
      choose_qparams(low.to(scale.scalar_type()), high.to(scale.scalar_type()), options.spec());
  scale.copy_(new_scale);
  zero_point.copy_(new_zero_point);
}

at::Tensor FakeQuantizeImpl::quantize(const at::Tensor& x) {
  return fake_quantize(x, learned_scale(scale),
                       options.spec().symmetric() ? zero_point : learned_zero_point(zero_point),
                       grad_scale(x));
}

void FakeQuantizeImpl::check_plain_rounding() const {
  TORCH_CHECK_VALUE(
      !options.power_of_two() && !options.stochastic_rounding() && !options.pass_through(),
      class_name(), ": power_of_two, stochastic_rounding and pass_through must be false");
}

at::Tensor FakeQuantizeImpl::empty_qparam() const { return at::empty(scale_shape(), at::kFloat); }

at::Tensor FakeQuantizeImpl::fake_quantize(const at::Tensor& x, at::Tensor scale_in_use,
                                           const at::Tensor& zero_point_in_use, double grad_scale) {
  const QuantSpec& spec = options.spec();
  if (options.power_of_two()) scale_in_use = power_of_two_scale(scale_in_use);
  std::optional<at::Tensor> seed;
  if (options.stochastic_rounding() && is_training()) {
    seed = at::randint(int64_t{1} << 62, {}, generator);
  }
  return qatx::fake_quantize(x, scale_in_use, zero_point_in_use, spec.quant_min(), spec.quant_max(),
                             spec.axis(), grad_scale, spec.group_size(), options.pass_through(),
                             seed);
}

// LSQ's: scales move about as fast, relative to their size, as weights do.
double FakeQuantizeImpl::grad_scale(const at::Tensor& x) const {
  if (!is_training()) return 1.0;
  int64_t elements = 1;  // the batch size must not matter
  for (int64_t d = options.role() == Role::kWeight ? 0 : 1; d < x.dim(); ++d) elements *= x.size(d);
  elements = std::max<int64_t>(elements / scale.numel(), 1);
  return 1.0 / std::sqrt(static_cast<double>(elements * options.spec().quant_max()));
}

void FakeQuantizeImpl::observe(const at::Tensor& x) {
  const at::NoGradGuard no_grad;
  // What a quantizer without parameters was converted to is not known: it takes all.
  const bool has_own = !parameters_.is_empty() || !buffers(false).empty();
  const at::ScalarType own = !parameters_.is_empty() ? parameters_[0].value().scalar_type()
                             : has_own               ? buffers(false)[0].scalar_type()
                                                     : at::kFloat;
  const bool is_wider = x.scalar_type() == at::kDouble && has_own && own != at::kDouble;
  TORCH_CHECK_TYPE(!is_wider && at::isFloatingType(x.scalar_type()),
                   "FakeQuantize: the input must be ", own, ", got ", x.scalar_type());
  TORCH_CHECK_VALUE(options.spec().scale_shape(x.sizes()) == scale_shape(),
                    "FakeQuantize: the input must have scales of shape ",
                    at::IntArrayRef(scale_shape()), " for ", options.spec().repr(), ", got shape ",
                    x.sizes());
  if (observer_) {
    observer_->observe(x.cpu());
  } else {
    last_weight_ = x;
  }
}

void FakeQuantizeImpl::check_calibrated() const {
  TORCH_CHECK(is_calibrated(),
              "FakeQuantize has no scale yet: call qatx.calibrate(model, data), or load the state "
              "dict of a calibrated model, before the model is trained or evaluated");
}

void FakeQuantizeImpl::set_state(State state) {
  state_ = state;
  // What is needed in one state only is there in that state only.
  last_weight_ = at::Tensor();
  observer_.reset();
  if (state == State::kCalibrate && options.role() == Role::kActivation) {
    observer_.emplace(options.spec(), scale_shape());
  }
  for (const auto& item : parameters_) {
    const at::Tensor& parameter = item.value();
    parameter.requires_grad_(options.learn_scale() && state != State::kFrozen);
    // Or an optimizer would go on with it.
    if (!parameter.requires_grad()) parameter.mutable_grad() = at::Tensor();
  }
}

}  // namespace qatx::nn
