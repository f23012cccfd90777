#pragma once

#include "qatx/kernels/epilogue.h"

namespace qatx::kernels {
namespace {  // compiled for several instruction sets: nothing here may be shared between them

// The clamp of y and the clamp of its code as one clamp of y * inv_scale before it is rounded:
//   code = rint(min(max(y * inv_scale, low), high)) + zero_point
// This takes fewer operations than Epilogue writes down and gives the same code, because every step
// there is monotonic and because low and high are integers.
struct CodeBounds {
  explicit CodeBounds(const Epilogue& epilogue)
      : low(bound(epilogue.clamp_min, epilogue.out)),
        high(bound(epilogue.clamp_max, epilogue.out)) {}

  float low;
  float high;

 private:
  // The code of y, less the zero point.
  static float bound(float y, const QParams& out) {
    const auto zero_point = static_cast<float>(out.zero_point);
    const float quant_min = static_cast<float>(out.quant_min) - zero_point;
    const float quant_max = static_cast<float>(out.quant_max) - zero_point;
    const float rounded = __builtin_rintf(y * out.inv_scale);
    return rounded < quant_min ? quant_min : rounded > quant_max ? quant_max : rounded;
  }
};

}  // namespace
}  // namespace qatx::kernels
