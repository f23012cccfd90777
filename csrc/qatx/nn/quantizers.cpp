#include "qatx/nn/quantizers.h"

#include <ATen/ATen.h>

#include <limits>

#include "qatx/ops/dorefa.h"
#include "qatx/ops/fake_quantize.h"
#include "qatx/ops/moving_average.h"
#include "qatx/ops/pact.h"
#include "qatx/ops/scales.h"

namespace qatx::nn {

// ---- PACT ----

PACTImpl::PACTImpl(FakeQuantizeOptions options_)
    : FakeQuantizeImpl(std::move(options_), Uninitialized{}) {
  init();
}

std::shared_ptr<FakeQuantizeImpl> PACTImpl::make_alike() const {
  return std::make_shared<PACTImpl>(options);
}

void PACTImpl::check_options() const {
  const QuantSpec& spec = options.spec();
  TORCH_CHECK_VALUE(!spec.is_signed() && !spec.narrow_range() && !spec.group_size(),
                    "PACT: spec must be unsigned, without narrow_range and group_size (its codes "
                    "are 0 to quant_max), got ",
                    spec.repr());
  check_plain_rounding();
}

void PACTImpl::register_qparams() { alpha = register_parameter("alpha", empty_qparam()); }

void PACTImpl::reset_qparams() { alpha.fill_(1.0); }

void PACTImpl::set_range(const at::Tensor&, const at::Tensor& high) {
  alpha.copy_(at::where(high > 0, high, 1.0));
}

at::Tensor PACTImpl::quantize(const at::Tensor& x) {
  return pact(x, learned_scale(alpha), options.spec().quant_max(), options.spec().axis());
}

// ---- MovingAverage ----

MovingAverageImpl::MovingAverageImpl(FakeQuantizeOptions options_)
    : FakeQuantizeImpl(std::move(options_), Uninitialized{}),
      averaging_constant(options.role() == Role::kWeight ? 1.0 : 0.01) {
  init();
}

std::shared_ptr<FakeQuantizeImpl> MovingAverageImpl::make_alike() const {
  auto alike = std::make_shared<MovingAverageImpl>(options);
  alike->averaging_constant = averaging_constant;
  return alike;
}

void MovingAverageImpl::check_options() const {
  TORCH_CHECK_VALUE(!options.spec().group_size(),
                    "MovingAverage: spec must have no group_size, got ", options.spec().repr());
  check_plain_rounding();
}

void MovingAverageImpl::register_qparams() {
  scale = register_buffer("scale", empty_qparam());
  zero_point = register_buffer("zero_point", empty_qparam());
  running_min = register_buffer("running_min", empty_qparam());
  running_max = register_buffer("running_max", empty_qparam());
}

void MovingAverageImpl::reset_qparams() {
  FakeQuantizeImpl::reset_qparams();
  running_min.fill_(std::numeric_limits<double>::infinity());
  running_max.fill_(-std::numeric_limits<double>::infinity());
}

void MovingAverageImpl::set_range(const at::Tensor& low, const at::Tensor& high) {
  FakeQuantizeImpl::set_range(low, high);
  running_min.copy_(low);
  running_max.copy_(high);
}

at::Tensor MovingAverageImpl::quantize(const at::Tensor& x) {
  if (!is_training() || state() == State::kFrozen) return fake_quantize(x, scale, zero_point);
  const QuantSpec& spec = options.spec();
  const auto [y, new_min, new_max, new_scale, new_zero_point] = moving_average_fake_quantize(
      x, running_min, running_max, averaging_constant, spec.quant_min(), spec.quant_max(),
      spec.symmetric(), spec.axis());
  const at::NoGradGuard no_grad;
  running_min.copy_(new_min);
  running_max.copy_(new_max);
  scale.copy_(new_scale);
  zero_point.copy_(new_zero_point);
  return y;
}

// ---- DoReFa ----

DoReFaImpl::DoReFaImpl(FakeQuantizeOptions options_)
    : FakeQuantizeImpl(std::move(options_), Uninitialized{}) {
  init();
}

std::shared_ptr<FakeQuantizeImpl> DoReFaImpl::make_alike() const {
  return std::make_shared<DoReFaImpl>(options);
}

void DoReFaImpl::check_options() const {
  const QuantSpec& spec = options.spec();
  TORCH_CHECK_VALUE(spec.is_signed() && spec.symmetric() && !spec.narrow_range() && spec.bits() < 8,
                    "DoReFa: spec must be signed and symmetric, without narrow_range, with at most "
                    "7 bits, got ",
                    spec.repr());
  TORCH_CHECK_VALUE(!spec.group_size(), "DoReFa: spec must have no group_size, got ", spec.repr());
  TORCH_CHECK_VALUE(options.role() == Role::kWeight,
                    "DoReFa: role must be 'weight', got 'activation'");
  check_plain_rounding();
}

at::Tensor DoReFaImpl::quantize(const at::Tensor& x) {
  const auto axis = options.spec().axis();
  const int64_t own = axis ? at::maybe_wrap_dim(*axis, x.dim()) : -1;
  std::vector<int64_t> others;
  std::vector<int64_t> shape(static_cast<size_t>(x.dim()), 1);
  for (int64_t d = 0; d < x.dim(); ++d) {
    if (d == own) {
      shape[static_cast<size_t>(d)] = -1;
    } else {
      others.push_back(d);
    }
  }
  const at::Tensor largest = x.detach().abs().amax(others).clamp_min(0x1p-64);
  const at::Tensor values = dorefa_weight(x, options.spec().bits(), axis) * largest.reshape(shape);
  // The values are on this grid already: it tells the converter the codes.
  const int64_t steps = (int64_t{1} << options.spec().bits()) - 1;
  return qatx::fake_quantize(values, largest / steps, at::zeros_like(largest), -steps, steps, axis);
}

}  // namespace qatx::nn
