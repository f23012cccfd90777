#include "qatx/kernels/fake_quantize.h"

#include <cmath>
#include <limits>

#include "qatx/kernels/implementations.h"
#include "qatx/kernels/noise.inc"
#include "qatx/kernels/scale_sums.inc"

namespace qatx::kernels {
namespace {

// What a code stands for, in steps from the zero point: before and after the clamp. NaN where x is.
template <class Real>
struct Steps {
  Real scaled;
  Real rounded;
  Real clamped;
};

template <class Real>
Steps<Real> steps_of(Real x, QParamsView<Real> qparams, int64_t p, const float* noise) {
  const Real scaled = x * qparams.inv_scale[p];
  Real rounded = std::rint(scaled);
  if (noise != nullptr) {
    const Real down = std::floor(scaled);
    rounded = static_cast<Real>(*noise) < scaled - down ? down + 1 : down;
  }
  const Real low = rounded < qparams.low[p] ? qparams.low[p] : rounded;
  return {scaled, rounded, low > qparams.high[p] ? qparams.high[p] : low};
}

// Element i of the noise, where there is noise.
const float* at(const float* noise, int64_t i) { return noise == nullptr ? nullptr : noise + i; }

template <class Real>
Real sum(Real (&lanes)[kLanes]) {
  for (int width = kLanes / 2; width > 0; width /= 2) {
    for (int i = 0; i < width; ++i) lanes[i] += lanes[i + width];
  }
  return lanes[0];
}

// Calls body(i, p) for every element i and the index p of its parameters.
template <class Body>
void for_runs(int64_t runs, int64_t n, const Body& body) {
  for (int64_t i = 0; i < runs * n; ++i) body(i, i / n);
}
template <class Body>
void for_rows(int64_t rows, int64_t channels, const Body& body) {
  for (int64_t i = 0; i < rows * channels; ++i) body(i, i % channels);
}

template <class T>
struct Reference {
  using Real = typename RealOf<T>::type;
  using View = QParamsView<Real>;

  static auto forward(const T* x, T* y, View qparams, const float* noise) {
    return [=](int64_t i, int64_t p) {
      const auto steps = steps_of(to_real(x[i]), qparams, p, at(noise, i));
      y[i] = from_real<T>((steps.clamped + 0) * qparams.scale[p]);
    };
  }
  static void forward_runs(const T* x, T* y, int64_t runs, int64_t n, View qparams,
                           const float* noise) {
    for_runs(runs, n, forward(x, y, qparams, noise));
  }
  static void forward_rows(const T* x, T* y, int64_t rows, int64_t channels, View qparams,
                           const float* noise) {
    for_rows(rows, channels, forward(x, y, qparams, noise));
  }

  static void backward(T g, T x, T& dx, View qparams, int64_t p, bool pass_through,
                       const float* noise, Real& dscale, Real& outside) {
    const Real gradient = to_real(g);
    const auto steps = steps_of(to_real(x), qparams, p, noise);
    const bool in = steps.clamped == steps.rounded;
    dscale += gradient * (in ? steps.clamped - steps.scaled : steps.clamped);
    outside += in ? 0 : gradient;
    dx = in || pass_through ? g : T{};
  }
  static void backward_runs(const T* g, const T* x, T* dx, int64_t runs, int64_t n, View qparams,
                            GradientOptions options, Real* dscale, Real* outside) {
    for (int64_t r = 0; r < runs; ++r) {
      Real scale_lanes[kLanes] = {};
      Real outside_lanes[kLanes] = {};
      for (int64_t i = 0; i < n; ++i) {
        const int64_t element = r * n + i;
        backward(g[element], x[element], dx[element], qparams, r, options.pass_through,
                 at(options.noise, element), scale_lanes[i % kLanes], outside_lanes[i % kLanes]);
      }
      dscale[r] = sum(scale_lanes);
      outside[r] = sum(outside_lanes);
    }
  }
  static void backward_rows(const T* g, const T* x, T* dx, int64_t rows, int64_t channels,
                            View qparams, GradientOptions options, Real* dscale, Real* outside) {
    for (int64_t c = 0; c < channels; ++c) dscale[c] = outside[c] = 0;
    for_rows(rows, channels, [&](int64_t i, int64_t c) {
      backward(g[i], x[i], dx[i], qparams, c, options.pass_through, at(options.noise, i), dscale[c],
               outside[c]);
    });
  }

  static auto quantize(const T* x, uint8_t* codes, View qparams, QuantRange range) {
    return [=](int64_t i, int64_t p) {
      const Real zero_point = range.quant_min - qparams.low[p];
      const Real steps = steps_of(to_real(x[i]), qparams, p, nullptr).clamped;
      codes[i] =
          static_cast<uint8_t>(static_cast<int32_t>((steps == steps ? steps : 0) + zero_point));
    };
  }
  static void quantize_runs(const T* x, uint8_t* codes, int64_t runs, int64_t n, View qparams,
                            QuantRange range) {
    for_runs(runs, n, quantize(x, codes, qparams, range));
  }
  static void quantize_rows(const T* x, uint8_t* codes, int64_t rows, int64_t channels,
                            View qparams, QuantRange range) {
    for_rows(rows, channels, quantize(x, codes, qparams, range));
  }

  static auto dequantize(const uint8_t* codes, bool is_signed, T* y, View qparams,
                         QuantRange range) {
    return [=](int64_t i, int64_t p) {
      const Real code = is_signed ? static_cast<int8_t>(codes[i]) : codes[i];
      const Real zero_point = range.quant_min - qparams.low[p];
      y[i] = from_real<T>((code - zero_point) * qparams.scale[p]);
    };
  }
  static void dequantize_runs(const uint8_t* codes, bool is_signed, T* y, int64_t runs, int64_t n,
                              View qparams, QuantRange range) {
    for_runs(runs, n, dequantize(codes, is_signed, y, qparams, range));
  }
  static void dequantize_rows(const uint8_t* codes, bool is_signed, T* y, int64_t rows,
                              int64_t channels, View qparams, QuantRange range) {
    for_rows(rows, channels, dequantize(codes, is_signed, y, qparams, range));
  }

  static void clip_backward(T g, T x, T& dx, Real alpha, Real& dalpha) {
    const Real value = to_real(x);
    dalpha += value >= alpha ? to_real(g) : 0;
    dx = value >= 0 && value < alpha ? g : T{};
  }
  static void clip_backward_runs(const T* g, const T* x, T* dx, int64_t runs, int64_t n,
                                 const Real* alpha, Real* dalpha) {
    for (int64_t r = 0; r < runs; ++r) {
      Real lanes[kLanes] = {};
      for (int64_t i = 0; i < n; ++i) {
        const int64_t element = r * n + i;
        clip_backward(g[element], x[element], dx[element], alpha[r], lanes[i % kLanes]);
      }
      dalpha[r] = sum(lanes);
    }
  }
  static void clip_backward_rows(const T* g, const T* x, T* dx, int64_t rows, int64_t channels,
                                 const Real* alpha, Real* dalpha) {
    for (int64_t c = 0; c < channels; ++c) dalpha[c] = 0;
    for_rows(rows, channels,
             [&](int64_t i, int64_t c) { clip_backward(g[i], x[i], dx[i], alpha[c], dalpha[c]); });
  }

  static auto widen(const T* x, Real* min, Real* max) {
    return [=](int64_t i, int64_t p) {
      const Real value = to_real(x[i]) + 0;
      if (!std::isfinite(value)) return;
      if (value < min[p]) min[p] = value;
      if (value > max[p]) max[p] = value;
    };
  }
  static void start_range(int64_t count, Real* min, Real* max) {
    for (int64_t p = 0; p < count; ++p) {
      min[p] = std::numeric_limits<Real>::infinity();
      max[p] = -min[p];
    }
  }
  static void range_runs(const T* x, int64_t runs, int64_t n, Real* min, Real* max) {
    start_range(runs, min, max);
    for_runs(runs, n, widen(x, min, max));
  }
  static void range_rows(const T* x, int64_t rows, int64_t channels, Real* min, Real* max) {
    start_range(channels, min, max);
    for_rows(rows, channels, widen(x, min, max));
  }

  static bool prepare(const Real* scale, const Real* zero_point, int64_t n, QuantRange range,
                      Real* inv_scale, Real* low, Real* high) {
    bool valid = true;
    for (int64_t i = 0; i < n; ++i) {
      valid = valid && scale[i] >= Real{0x1p-126} && scale[i] <= Real{0x1p126} &&
              zero_point[i] == zero_point[i];
      if (inv_scale == nullptr) continue;
      inv_scale[i] = 1 / scale[i];
      const Real rounded = std::rint(zero_point[i]);
      const Real at_least = rounded < range.quant_min ? range.quant_min : rounded;
      const Real in_use = at_least > range.quant_max ? range.quant_max : at_least;
      low[i] = range.quant_min - in_use;
      high[i] = range.quant_max - in_use;
    }
    return valid;
  }

  static constexpr FakeQuantizeKernels<T> kernels = {
      forward_runs,  forward_rows,    backward_runs,   backward_rows,      quantize_runs,
      quantize_rows, dequantize_runs, dequantize_rows, clip_backward_runs, clip_backward_rows,
      range_runs,    range_rows,      prepare,         scale_sums<Real>};
};

}  // namespace

const FakeQuantizeTable reference::fake_quantize = {
    Reference<float>::kernels, Reference<BFloat16>::kernels, Reference<Half>::kernels, noise};
const FakeQuantizeKernels<double> reference::fake_quantize_f64 = Reference<double>::kernels;

}  // namespace qatx::kernels
