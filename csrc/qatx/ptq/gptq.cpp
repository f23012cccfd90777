#include "qatx/ptq/gptq.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cholesky_inverse.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/linalg_cholesky.h>

#include <algorithm>

namespace qatx::ptq {
namespace {

// One group. All matrices are contiguous, float64; columns in the order in which they are rounded.
struct Group {
  at::Tensor weight;      // [outputs, inputs]; columns that are left are changed
  at::Tensor scale;       // [outputs, inputs]
  at::Tensor zero_point;  // [outputs, inputs]
  at::Tensor upper;       // [inputs, inputs]: U with U^T U = hessian^-1
};

at::Tensor round_columns(Group& group, const WeightGrid& grid, int64_t block_size) {
  const int64_t outputs = group.weight.size(0);
  const int64_t inputs = group.weight.size(1);
  at::Tensor steps = at::empty_like(group.weight);
  auto* w = group.weight.mutable_data_ptr<double>();
  auto* q = steps.mutable_data_ptr<double>();
  const auto* s = group.scale.const_data_ptr<double>();
  const auto* z = group.zero_point.const_data_ptr<double>();
  const auto* u = group.upper.const_data_ptr<double>();
  for (int64_t begin = 0; begin < inputs; begin += block_size) {
    const int64_t end = std::min(begin + block_size, inputs);
    at::Tensor errors = at::empty({outputs, end - begin}, at::kDouble);
    auto* e = errors.mutable_data_ptr<double>();
    at::parallel_for(0, outputs, 4, [&](int64_t first, int64_t last) {
      for (int64_t r = first; r < last; ++r) {
        double* row = w + r * inputs;
        for (int64_t j = begin; j < end; ++j) {
          const int64_t i = r * inputs + j;
          const double* factor = u + j * inputs;
          q[i] = Steps(grid, z[i]).nearest(row[j], s[i]);
          const double error = (row[j] - q[i] * s[i]) / factor[j];
          for (int64_t k = j + 1; k < end; ++k) row[k] -= error * factor[k];
          e[r * (end - begin) + j - begin] = error;
        }
      }
    });
    if (end < inputs) {
      group.weight.narrow(1, end, inputs - end)
          .addmm_(errors, group.upper.narrow(0, begin, end - begin).narrow(1, end, inputs - end),
                  1.0, -1.0);
    }
  }
  return steps;
}

}  // namespace

at::Tensor gptq(const OutputError& error, const at::Tensor& weight, const WeightGrid& grid,
                const GptqOptions& options) {
  TORCH_CHECK_VALUE(options.block_size > 0, "block_size must be at least 1, got ",
                    options.block_size);
  const RoundingProblem problem(error, weight, grid, options.dampening);
  at::Tensor steps = at::empty_like(problem.center);
  for (int64_t g = 0; g < weight.size(0); ++g) {
    at::Tensor hessian = problem.hessian[g];
    const at::Tensor order = options.activation_order
                                 ? hessian.diagonal().argsort(/*stable=*/true, /*dim=*/0,
                                                              /*descending=*/true)
                                 : at::arange(hessian.size(0), at::kLong);
    hessian = hessian.index_select(0, order).index_select(1, order);
    const at::Tensor inverse = at::cholesky_inverse(at::linalg_cholesky(hessian));
    Group group{problem.center[g].index_select(1, order), problem.scale[g].index_select(1, order),
                problem.zero_point[g].index_select(1, order),
                at::linalg_cholesky(inverse, /*upper=*/true).contiguous()};
    steps[g].index_copy_(1, order, round_columns(group, grid, options.block_size));
  }
  return weights_of(steps, error, weight, grid);
}

}  // namespace qatx::ptq
