#pragma once

#include <ATen/core/Tensor.h>
#include <c10/macros/Export.h>

#include <cstdint>

#include "qatx/ptq/output_error.h"
#include "qatx/ptq/rounding_problem.h"

namespace qatx::ptq {

struct GptqOptions {
  double dampening = 0.01;       // share of the mean of the Gram matrix's diagonal; at least 0
  int64_t block_size = 128;      // columns between two matrix products; makes no difference
  bool activation_order = true;  // columns with the largest inputs first
};

// Rounds a layer's weights one column (input) after the other, and makes up for the error of each
// in those that come later (Frantar et al. 2022, arXiv 2210.17323, algorithm 1, with the inverse
// Hessian from its Cholesky factor).
//
// weight: [groups, outputs, inputs], floating point. Returns float32 of that shape, values of the
// grid, with no larger error in any output channel than rounding to nearest. Throws c10::Error that
// says what is wrong.
C10_EXPORT at::Tensor gptq(const OutputError& error, const at::Tensor& weight,
                           const WeightGrid& grid, const GptqOptions& options = {});

}  // namespace qatx::ptq
