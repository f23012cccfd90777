#pragma once

#include <ATen/core/Tensor.h>
#include <c10/macros/Export.h>

#include <cstdint>

#include "qatx/ptq/output_error.h"
#include "qatx/ptq/rounding_problem.h"

namespace qatx::ptq {

struct AdaRoundOptions {
  double dampening = 0.01;       // share of the mean of the Gram matrix's diagonal; at least 0
  int64_t iterations = 2000;     // of Adam; at least 1
  double learning_rate = 0.1;    // of Adam; positive
  double regularization = 10.0;  // weight of the term that makes roundings definite; positive
  double warm_up = 0.2;          // the share of iterations without that term; 0 to below 1
  double beta_start = 20.0;      // its exponent, from here
  double beta_end = 2.0;         // down to here
};

// Learns for each weight of a layer whether to round it up or down (Nagel et al. 2020, arXiv
// 2004.10568): minimizes
//   error(scale * clip(floor(w / scale) + h(v))) + regularization * sum(1 - |2 h(v) - 1|^beta)
// with the rectified sigmoid h(v) = clip(1.2 sigmoid(v) - 0.1, 0, 1), by Adam, beta going down
// along half a cosine. Unlike the paper's it is not stochastic, because the error is known for all
// data at once (OutputError); and it is measured in units of what rounding one weight to nearest
// costs on average, so that the regularization means the same in all layers.
//
// weight: [groups, outputs, inputs], floating point. Returns float32 of that shape, values of the
// grid, with no larger error in any output channel than rounding to nearest. Throws c10::Error that
// says what is wrong.
C10_EXPORT at::Tensor adaround(const OutputError& error, const at::Tensor& weight,
                               const WeightGrid& grid, const AdaRoundOptions& options = {});

}  // namespace qatx::ptq
