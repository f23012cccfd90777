#include "qatx/kernels/rows.h"

#include <cmath>
#include <cstring>
#include <limits>

#include "qatx/kernels/fake_quantize.h"
#include "qatx/kernels/implementations.h"
#include "qatx/kernels/vectorizable.h"

namespace qatx::kernels {
namespace {

float element(const Rows& rows, int64_t r, int64_t i) {
  const float x = rows.x[r * rows.n + i];
  const float t = rows.divide ? x / rows.factor : x * rows.factor;
  if (rows.mask == nullptr) return t;
  const float m = rows.mask[r * rows.mask_stride + i];
  if (!rows.replace) return t + m;
  return m == m ? m : t;
}

void write(const Epilogue& e, float y, int64_t r, int64_t i) {
  y = clamp(y, e.clamp_min, e.clamp_max);
  if (e.out_f32 != nullptr) {
    e.out_f32[r * e.out_stride + i] = y;
  } else {
    e.out_u8[r * e.out_stride + i] = static_cast<uint8_t>(quantize_one(y, e.out));
  }
}

// The sum of value(i) over all i < n.
template <class F>
float lane_sum(int64_t n, const F& value) {
  float lanes[kLanes] = {};
  for (int64_t i = 0; i < n; ++i) lanes[i % kLanes] += value(i);
  for (int64_t width = kLanes / 2; width > 0; width /= 2) {
    for (int64_t i = 0; i < width; ++i) lanes[i] += lanes[i + width];
  }
  return lanes[0];
}

void affine(const Rows& rows, const Epilogue& epilogue) {
  for (int64_t r = 0; r < rows.rows; ++r) {
    for (int64_t i = 0; i < rows.n; ++i) write(epilogue, element(rows, r, i), r, i);
  }
}

float power_of_two(float k) {
  const int32_t bits = (static_cast<int32_t>(k) + 127) << 23;
  float power;
  std::memcpy(&power, &bits, sizeof(power));
  return power;
}

float exponential(float u) {
  if (u != u) return u;
  if (u < kExpLeast) return 0.0f;
  const float k = __builtin_rintf(u * kExpLog2E);
  const float r = (u - k * kExpLn2High) - k * kExpLn2Low;
  float p = kExpPolynomial[0];
  for (int i = 1; i < 6; ++i) p = p * r + kExpPolynomial[i];
  return ((p * (r * r) + r) + 1.0f) * power_of_two(k);
}

void softmax(const Rows& rows, float* scratch, const Epilogue& epilogue) {
  for (int64_t r = 0; r < rows.rows; ++r) {
    float most = -std::numeric_limits<float>::infinity();
    for (int64_t i = 0; i < rows.n; ++i) {
      const float t = element(rows, r, i);
      most = t > most ? t : most;
    }
    for (int64_t i = 0; i < rows.n; ++i) scratch[i] = exponential(element(rows, r, i) - most);
    const float inverse = 1.0f / lane_sum(rows.n, [&](int64_t i) { return scratch[i]; });
    for (int64_t i = 0; i < rows.n; ++i) write(epilogue, scratch[i] * inverse, r, i);
  }
}

void layer_norm(const float* x, int64_t rows, int64_t n, const float* weight, const float* bias,
                float eps, const Epilogue& epilogue) {
  const auto count = static_cast<float>(n);
  for (int64_t r = 0; r < rows; ++r) {
    const float* row = x + r * n;
    const float mean = lane_sum(n, [&](int64_t i) { return row[i]; }) / count;
    const auto square = [&](int64_t i) { return (row[i] - mean) * (row[i] - mean); };
    const float factor = 1.0f / __builtin_sqrtf(lane_sum(n, square) / count + eps);
    for (int64_t i = 0; i < n; ++i) {
      write(epilogue, ((row[i] - mean) * factor) * weight[i] + bias[i], r, i);
    }
  }
}

void quantize(const float* x, int64_t rows, int64_t n, int32_t quant_max, uint8_t* codes,
              float* scales) {
  const auto last = static_cast<float>(quant_max);
  for (int64_t r = 0; r < rows; ++r, x += n, codes += n) {
    float most = 0.0f;
    bool has_nan = false;
    for (int64_t i = 0; i < n; ++i) {
      const float size = std::fabs(x[i]);
      if (std::isfinite(size) && size > most) most = size;
      has_nan |= std::isnan(size);
    }
    const float scale = row_scale(most, quant_max);
    const float inverse = 1.0f / scale;
    for (int64_t i = 0; i < n; ++i) {
      const float q = std::isnan(x[i]) ? 0.0f : clamp(__builtin_rintf(x[i] * inverse), -last, last);
      codes[i] = static_cast<uint8_t>(static_cast<int32_t>(q) + kRowZeroPoint);
    }
    scales[r] = has_nan ? std::numeric_limits<float>::quiet_NaN() : scale;
  }
}

}  // namespace

const RowKernels reference::rows = {affine, softmax, layer_norm, quantize};

}  // namespace qatx::kernels
