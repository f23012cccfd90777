#pragma once

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>
#include <c10/util/SmallVector.h>

#include <atomic>
#include <cstdint>
#include <optional>
#include <type_traits>
#include <vector>

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

// What a thread keeps from one stretch to the next.
template <class Real>
struct Scratch {
  std::vector<Real> qparams;
  std::vector<float> noise;
};

// The parameters in use, read and checked. What kernels derive from them is derived once where they
// are few; where they are many, as in groups, by every stretch for itself: that is done in parallel
// and stays in the cache.
template <class T>
class QParamsInUse {
 public:
  using Real = typename kernels::RealOf<T>::type;

  QParamsInUse(const at::Tensor& scale, const at::Tensor& zero_point, kernels::QuantRange range)
      : scale_(scale.expect_contiguous()),
        zero_point_(zero_point.expect_contiguous()),
        range_(range),
        size_(scale.numel()) {
    std::atomic<bool> valid = true;
    if (are_few()) {
      derived_.resize(static_cast<size_t>(3 * size_));
      valid = derive(0, size_, derived_.data());
    } else {
      at::parallel_for(0, size_, kFew, [&](int64_t begin, int64_t end) {
        if (!derive(begin, end - begin, nullptr)) valid = false;
      });
    }
    if (!valid) check_qparams_values(scale, zero_point);
  }

  // Whether they are derived ahead. If not, stretches should be short.
  bool are_few() const { return size_ <= kFew; }

  const Real* scale() const { return data<Real>(*scale_); }

  // The parameters of a stretch, of which there are n. Valid as long as `scratch` is.
  kernels::QParamsView<Real> of(const Stretch& stretch, int64_t n, Scratch<Real>& scratch) const {
    if (are_few()) return view(stretch.qparams, derived_.data() + stretch.qparams, size_);
    scratch.qparams.resize(static_cast<size_t>(3 * n));
    derive(stretch.qparams, n, scratch.qparams.data());
    return view(stretch.qparams, scratch.qparams.data(), n);
  }

 private:
  static constexpr int64_t kFew = 4096;

  // Of n parameters from the first on: 1 / scale, then low, then high. Only checks where `derived`
  // is null.
  bool derive(int64_t first, int64_t n, Real* derived) const {
    return fake_quantize_kernels<T>().prepare(
        scale() + first, data<Real>(*zero_point_) + first, n, range_, derived,
        derived == nullptr ? nullptr : derived + n, derived == nullptr ? nullptr : derived + 2 * n);
  }
  kernels::QParamsView<Real> view(int64_t first, const Real* derived, int64_t n) const {
    return {scale() + first, derived, derived + n, derived + 2 * n};
  }

  c10::MaybeOwned<at::Tensor> scale_;
  c10::MaybeOwned<at::Tensor> zero_point_;
  kernels::QuantRange range_;
  int64_t size_;
  c10::SmallVector<Real, 12> derived_;
};

// The numbers that stochastic rounding uses for a stretch; none without a seed.
class Noise {
 public:
  explicit Noise(const std::optional<at::Tensor>& seed) {
    if (seed) seed_ = static_cast<uint64_t>(seed->item<int64_t>());
  }

  bool is_used() const { return seed_.has_value(); }

  // Valid as long as `scratch` is.
  template <class Real>
  const float* of(const Stretch& stretch, Scratch<Real>& scratch) const {
    if (!seed_) return nullptr;
    scratch.noise.resize(static_cast<size_t>(stretch.size()));
    kernels::active().fake_quantize.noise(*seed_, stretch.offset, stretch.size(),
                                          scratch.noise.data());
    return scratch.noise.data();
  }

 private:
  std::optional<uint64_t> seed_;
};

}  // namespace qatx
