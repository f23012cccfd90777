#include "qatx/kernels/fake_quantize.h"

#include <cmath>

#include "qatx/kernels/implementations.h"

namespace qatx::kernels {
namespace {

// v before the clamp, q after it; both NaN where x is.
struct Code {
  float scaled;
  float q;
  bool in_range;
};

Code code_of(float x, const ChannelQParams& qparams, QuantRange range) {
  const float scaled = x * qparams.inv_scale;
  const float v = std::rint(scaled) + qparams.zero_point;
  const float low = v < range.quant_min ? range.quant_min : v;
  return {scaled, low > range.quant_max ? range.quant_max : low,
          v >= range.quant_min && v <= range.quant_max};
}

float forward(float x, const ChannelQParams& qparams, QuantRange range) {
  return (code_of(x, qparams, range).q - qparams.zero_point) * qparams.scale;
}

void backward(float g, float x, float& dx, const ChannelQParams& qparams, QuantRange range,
              float& dscale, float& dzero_point) {
  const Code code = code_of(x, qparams, range);
  const float difference = code.q - qparams.zero_point;
  dscale += g * (code.in_range ? difference - code.scaled : difference);
  dzero_point += code.in_range ? 0.0f : -(g * qparams.scale);
  dx = code.in_range ? g : 0.0f;
}

void forward_run(const float* x, float* y, int64_t n, const ChannelQParams& qparams,
                 QuantRange range) {
  for (int64_t i = 0; i < n; ++i) y[i] = forward(x[i], qparams, range);
}

void forward_rows(const float* x, float* y, int64_t rows, int64_t channels, const float* scale,
                  const float* inv_scale, const float* zero_point, QuantRange range) {
  for (int64_t i = 0; i < rows * channels; ++i) {
    const int64_t c = i % channels;
    y[i] = forward(x[i], {scale[c], inv_scale[c], zero_point[c]}, range);
  }
}

void backward_run(const float* g, const float* x, float* dx, int64_t n,
                  const ChannelQParams& qparams, QuantRange range, float* dscale,
                  float* dzero_point) {
  for (int64_t i = 0; i < n; ++i) {
    const int64_t lane = i % kLanes;
    backward(g[i], x[i], dx[i], qparams, range, dscale[lane], dzero_point[lane]);
  }
}

void backward_rows(const float* g, const float* x, float* dx, int64_t rows, int64_t channels,
                   const float* scale, const float* inv_scale, const float* zero_point,
                   QuantRange range, float* dscale, float* dzero_point) {
  for (int64_t i = 0; i < rows * channels; ++i) {
    const int64_t c = i % channels;
    backward(g[i], x[i], dx[i], {scale[c], inv_scale[c], zero_point[c]}, range, dscale[c],
             dzero_point[c]);
  }
}

}  // namespace

const FakeQuantizeKernels reference::fake_quantize = {forward_run, forward_rows, backward_run,
                                                      backward_rows};

}  // namespace qatx::kernels
