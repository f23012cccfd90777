#pragma once

#include <ATen/core/Tensor.h>

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "qatx/ptq/output_error.h"

namespace qatx::ptq {

// The values that a layer's weights may take: (q - zero_point) * scale with the integer q from
// quant_min to quant_max. scale and zero_point have an element for each weight, [groups, outputs,
// inputs], so that the granularity of scales makes no difference; float32, on the CPU.
struct WeightGrid {
  at::Tensor scale;
  at::Tensor zero_point;
  int64_t quant_min;
  int64_t quant_max;
};

// The bounds of q - zero_point, and the nearest of them to x / scale.
struct Steps {
  Steps(const WeightGrid& grid, double zero_point)
      : low(static_cast<double>(grid.quant_min) - zero_point),
        high(static_cast<double>(grid.quant_max) - zero_point) {}

  double nearest(double x, double scale) const {
    return std::clamp(std::nearbyint(x / scale), low, high);
  }

  double low;
  double high;
};

// What GPTQ and AdaRound solve: of the grid, the W with the smallest
//   tr((W - center) hessian (W - center)^T).
// That is OutputError with a ridge that draws W to the layer's own weights, in other words:
//   hessian = A + d * I,  center = (B + d * weight) hessian^-1,  d = dampening * mean(diag(A)).
// A row element that never was anything but 0 says nothing about its weights: it counts as 1.
struct RoundingProblem {
  RoundingProblem(const OutputError& error, const at::Tensor& weight, const WeightGrid& grid,
                  double dampening);

  at::Tensor center;      // [groups, outputs, inputs], float64
  at::Tensor hessian;     // [groups, inputs, inputs], float64
  at::Tensor factor;      // its lower Cholesky factor
  at::Tensor scale;       // of the grid, float64
  at::Tensor zero_point;  // of the grid, float64
};

// Turns steps (q - zero_point, float64) into weights, float32, just as dequantization does; but
// channels that are nearer to what is wanted when each weight is rounded to nearest are so rounded.
at::Tensor weights_of(const at::Tensor& steps, const OutputError& error, const at::Tensor& weight,
                      const WeightGrid& grid);

}  // namespace qatx::ptq
