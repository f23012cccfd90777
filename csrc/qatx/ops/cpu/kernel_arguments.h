#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>
#include <c10/util/SmallVector.h>

#include <cstdint>
#include <optional>
#include <type_traits>

#include "qatx/core/qparams.h"
#include "qatx/kernels/registry.h"
#include "qatx/ops/cpu/layout.h"

// From tensors to what kernels take.

namespace qatx {

template <class T>
const kernels::FakeQuantizeKernels<T>& fake_quantize_kernels() {
  const kernels::Kernels& row = kernels::active();
  if constexpr (std::is_same_v<T, float>) {
    return row.fake_quantize.f32;
  } else if constexpr (std::is_same_v<T, kernels::BFloat16>) {
    return row.fake_quantize.bf16;
  } else if constexpr (std::is_same_v<T, kernels::Half>) {
    return row.fake_quantize.f16;
  } else {
    return row.fake_quantize_f64;
  }
}

// body(T{}) for the element type of a dtype that check_float() lets through.
template <class Body>
auto with_element_type(at::ScalarType dtype, const Body& body) {
  switch (dtype) {
    case at::kFloat:
      return body(float{});
    case at::kBFloat16:
      return body(kernels::BFloat16{});
    case at::kHalf:
      return body(kernels::Half{});
    default:
      return body(double{});
  }
}

template <class T>
const T* data(const at::Tensor& t) {
  return static_cast<const T*>(t.const_data_ptr());
}
template <class T>
T* mutable_data(const at::Tensor& t) {
  return static_cast<T*>(t.mutable_data_ptr());
}

inline kernels::QuantRange quant_range(int64_t quant_min, int64_t quant_max) {
  return {static_cast<float>(quant_min), static_cast<float>(quant_max)};
}

// The parameters in use, read and checked.
template <class T>
class QParamsInUse {
 public:
  using Real = typename kernels::RealOf<T>::type;

  QParamsInUse(const at::Tensor& scale, const at::Tensor& zero_point, kernels::QuantRange range)
      : scale_(scale.expect_contiguous()), derived_(static_cast<size_t>(3 * scale.numel())) {
    const auto zero_points = zero_point.expect_contiguous();
    const int64_t n = scale.numel();
    Real* inv_scale = derived_.data();
    const bool valid =
        fake_quantize_kernels<T>().prepare(data<Real>(*scale_), data<Real>(*zero_points), n, range,
                                           inv_scale, inv_scale + n, inv_scale + 2 * n);
    if (!valid) check_qparams_values(scale, zero_point);
  }

  kernels::QParamsView<Real> view() const {
    const size_t n = derived_.size() / 3;
    return {data<Real>(*scale_), derived_.data(), derived_.data() + n, derived_.data() + 2 * n};
  }

 private:
  c10::MaybeOwned<at::Tensor> scale_;
  c10::SmallVector<Real, 12> derived_;  // inv_scale, then low, then high
};

// The numbers that stochastic rounding uses for a stretch; none without a seed.
class Noise {
 public:
  explicit Noise(const std::optional<at::Tensor>& seed) {
    if (seed) seed_ = static_cast<uint64_t>(seed->item<int64_t>());
  }

  bool is_used() const { return seed_.has_value(); }

  // Valid as long as `buffer` is.
  const float* of(const Stretch& stretch, std::vector<float>& buffer) const {
    if (!seed_) return nullptr;
    buffer.resize(static_cast<size_t>(stretch.size()));
    kernels::active().fake_quantize.noise(*seed_, stretch.offset, stretch.size(), buffer.data());
    return buffer.data();
  }

 private:
  std::optional<uint64_t> seed_;
};

}  // namespace qatx
