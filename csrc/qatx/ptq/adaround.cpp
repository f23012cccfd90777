#include "qatx/ptq/adaround.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/empty_like.h>

#include <cmath>
#include <numbers>
#include <vector>

namespace qatx::ptq {
namespace {

constexpr float kGamma = -0.1f;  // the sigmoid is stretched to gamma .. zeta, then clipped
constexpr float kZeta = 1.1f;
constexpr float kAdamBeta1 = 0.9f;
constexpr float kAdamBeta2 = 0.999f;
constexpr float kAdamEpsilon = 1e-8f;
constexpr int64_t kGrain = 4096;

// One weight: what is fixed, what is learned, and Adam's moments.
struct Element {
  float floor;   // of center / scale
  float center;  // center / scale - floor, 0 to 1
  float scale;
  float low;  // bounds of q - zero_point
  float high;
  float v;
  float first = 0.0f;
  float second = 0.0f;
};

float sigmoid(float v) { return 1.0f / (1.0f + std::exp(-v)); }
float stretched(float s) { return s * (kZeta - kGamma) + kGamma; }

float rounded_up(const Element& e) { return std::clamp(stretched(sigmoid(e.v)), 0.0f, 1.0f); }

Element start(double center, double scale, const Steps& steps) {
  const double floor = std::floor(center / scale);
  Element e{};
  e.floor = static_cast<float>(floor);
  e.center = static_cast<float>(center / scale - floor);
  e.scale = static_cast<float>(scale);
  e.low = static_cast<float>(steps.low);
  e.high = static_cast<float>(steps.high);
  e.v = -std::log((kZeta - kGamma) / (e.center - kGamma) - 1.0f);  // h(v) = center
  return e;
}

// What a pass over the elements needs to know of the iteration.
struct Iteration {
  float unit;  // turns the gradient of the squared error into that of the loss
  float regularization;
  float beta;
  float step;    // learning rate, with Adam's correction of the first moment
  float second;  // Adam's correction of the second moment
};

void step(Element& e, float gradient, const Iteration& it) {
  const float s = sigmoid(e.v);
  const float h = stretched(s);
  float dh = 0.0f;
  if (h > 0.0f && h < 1.0f) {
    const float value = e.floor + h;
    if (value > e.low && value < e.high) dh = gradient * it.unit * e.scale;
    if (it.regularization > 0.0f) {
      const float distance = 2.0f * h - 1.0f;
      const float slope = 2.0f * it.beta * std::pow(std::abs(distance), it.beta - 1.0f);
      dh -= it.regularization * std::copysign(slope, distance);
    }
    dh *= (kZeta - kGamma) * s * (1.0f - s);
  }
  e.first += (1.0f - kAdamBeta1) * (dh - e.first);
  e.second += (1.0f - kAdamBeta2) * (dh * dh - e.second);
  e.v -= it.step * e.first / (std::sqrt(e.second * it.second) + kAdamEpsilon);
}

void check(const AdaRoundOptions& o) {
  const auto is_positive = [](double x) { return std::isfinite(x) && x > 0; };
  TORCH_CHECK_VALUE(o.iterations > 0, "iterations must be at least 1, got ", o.iterations);
  TORCH_CHECK_VALUE(is_positive(o.learning_rate), "learning_rate must be positive, got ",
                    o.learning_rate);
  TORCH_CHECK_VALUE(is_positive(o.regularization), "regularization must be positive, got ",
                    o.regularization);
  TORCH_CHECK_VALUE(o.warm_up >= 0 && o.warm_up < 1, "warm_up must be from 0 to below 1, got ",
                    o.warm_up);
  TORCH_CHECK_VALUE(o.beta_start >= o.beta_end && o.beta_end > 1 && std::isfinite(o.beta_start),
                    "beta_start must be at least beta_end, and that more than 1, got ",
                    o.beta_start, " and ", o.beta_end);
}

// The regularization's weight and exponent, and Adam's step, in iteration t = 0, 1, ...
Iteration iteration(int64_t t, const AdaRoundOptions& o, double unit) {
  const double progress = static_cast<double>(t) / static_cast<double>(o.iterations);
  const double annealed = std::max(0.0, (progress - o.warm_up) / (1.0 - o.warm_up));
  const double beta = o.beta_end + 0.5 * (o.beta_start - o.beta_end) *
                                       (1.0 + std::cos(annealed * std::numbers::pi));
  const auto n = static_cast<double>(t + 1);
  return {static_cast<float>(2.0 / unit),
          progress < o.warm_up ? 0.0f : static_cast<float>(o.regularization),
          static_cast<float>(beta),
          static_cast<float>(o.learning_rate / (1.0 - std::pow(kAdamBeta1, n))),
          static_cast<float>(1.0 / (1.0 - std::pow(kAdamBeta2, n)))};
}

}  // namespace

at::Tensor adaround(const OutputError& error, const at::Tensor& weight, const WeightGrid& grid,
                    const AdaRoundOptions& options) {
  check(options);
  const RoundingProblem problem(error, weight, grid, options.dampening);
  const auto n = static_cast<size_t>(weight.numel());
  at::Tensor steps = at::empty_like(problem.center);
  at::Tensor off = at::empty_like(problem.center);  // from the center
  auto* q = steps.mutable_data_ptr<double>();
  auto* d = off.mutable_data_ptr<double>();
  const auto* center = problem.center.const_data_ptr<double>();
  const auto* scale = problem.scale.const_data_ptr<double>();
  const auto* zero_point = problem.zero_point.const_data_ptr<double>();
  std::vector<Element> elements(n);
  for (size_t i = 0; i < n; ++i) {
    const Steps bounds(grid, zero_point[i]);
    elements[i] = start(center[i], scale[i], bounds);
    q[i] = bounds.nearest(center[i], scale[i]);
    d[i] = q[i] * scale[i] - center[i];
  }
  const double unit =
      (at::bmm(off, problem.hessian) * off).sum().item<double>() / static_cast<double>(n);
  if (unit == 0.0) return weights_of(steps, error, weight, grid);  // all on the grid

  // float32 from here on: the gradient needs a direction, not digits.
  const at::Tensor hessian = problem.hessian.to(at::kFloat);
  at::Tensor offset = off.to(at::kFloat);
  at::Tensor gradient = at::empty_like(offset);
  auto* o = offset.mutable_data_ptr<float>();
  const auto count = static_cast<int64_t>(n);
  for (int64_t t = 0; t < options.iterations; ++t) {
    at::parallel_for(0, count, kGrain, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const Element& e = elements[static_cast<size_t>(i)];
        const float value = std::clamp(e.floor + rounded_up(e), e.low, e.high);
        o[i] = (value - e.floor - e.center) * e.scale;
      }
    });
    at::bmm_out(gradient, offset, hessian);
    const auto* g = gradient.const_data_ptr<float>();
    const Iteration it = iteration(t, options, unit);
    at::parallel_for(0, count, kGrain, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) step(elements[static_cast<size_t>(i)], g[i], it);
    });
  }
  for (size_t i = 0; i < n; ++i) {
    const Element& e = elements[i];
    q[i] = std::clamp(e.floor + (rounded_up(e) >= 0.5f ? 1.0f : 0.0f), e.low, e.high);
  }
  return weights_of(steps, error, weight, grid);
}

}  // namespace qatx::ptq
