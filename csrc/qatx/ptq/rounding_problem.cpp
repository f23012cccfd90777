#include "qatx/ptq/rounding_problem.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cholesky_solve.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/linalg_cholesky_ex.h>
#include <ATen/ops/where.h>

namespace qatx::ptq {
namespace {

void check_grid(const at::Tensor& t, const char* name, const at::Tensor& weight) {
  TORCH_CHECK_VALUE(t.sizes() == weight.sizes() && t.scalar_type() == at::kFloat && t.is_cpu(),
                    "WeightGrid: ", name, " must be float32 of the shape ", weight.sizes(),
                    " on the CPU, got ", t.scalar_type(), " of the shape ", t.sizes(), " on ",
                    t.device());
}

at::Tensor nearest_steps(const at::Tensor& weight, const WeightGrid& grid) {
  const at::Tensor w = weight.to(at::kDouble).contiguous();
  const at::Tensor scale = grid.scale.to(at::kDouble).contiguous();
  const at::Tensor zero_point = grid.zero_point.to(at::kDouble).contiguous();
  at::Tensor steps = at::empty_like(w);
  const auto* x = w.const_data_ptr<double>();
  const auto* s = scale.const_data_ptr<double>();
  const auto* z = zero_point.const_data_ptr<double>();
  auto* q = steps.mutable_data_ptr<double>();
  for (int64_t i = 0; i < w.numel(); ++i) q[i] = Steps(grid, z[i]).nearest(x[i], s[i]);
  return steps;
}

}  // namespace

RoundingProblem::RoundingProblem(const OutputError& error, const at::Tensor& weight,
                                 const WeightGrid& grid, double dampening) {
  error.check_weight(weight);
  check_grid(grid.scale, "scale", weight);
  check_grid(grid.zero_point, "zero_point", weight);
  TORCH_CHECK_VALUE(std::isfinite(dampening) && dampening >= 0,
                    "dampening must be finite and at least 0, got ", dampening);
  TORCH_CHECK_VALUE(error.rows() > 0, "the layer has seen no data");
  TORCH_CHECK_VALUE(
      error.gram().isfinite().all().item<bool>() && error.cross().isfinite().all().item<bool>(),
      "the layer's inputs or outputs hold NaN or infinities");
  scale = grid.scale.to(at::kDouble).contiguous();
  zero_point = grid.zero_point.to(at::kDouble).contiguous();
  const at::Tensor w = weight.to(at::kDouble);
  hessian = error.gram().clone();
  at::Tensor diagonal = hessian.diagonal(0, -2, -1);
  const at::Tensor d = dampening * diagonal.mean(-1, /*keepdim=*/true);  // [groups, 1]
  const at::Tensor ridge = at::where(diagonal == 0, 1.0, d);
  diagonal += ridge;
  const auto [lower, info] = at::linalg_cholesky_ex(hessian);
  TORCH_CHECK_VALUE(info.eq(0).all().item<bool>(),
                    "the layer's inputs depend on each other, so that their Gram matrix has no "
                    "Cholesky factor: use more samples or a larger dampening, got ",
                    dampening);
  factor = lower;
  const at::Tensor wanted = error.cross() + w * ridge.unsqueeze(1);
  center = at::cholesky_solve(wanted.mT().contiguous(), factor).mT().contiguous();
}

at::Tensor weights_of(const at::Tensor& steps, const OutputError& error, const at::Tensor& weight,
                      const WeightGrid& grid) {
  const at::Tensor solved = steps.to(at::kFloat) * grid.scale;
  const at::Tensor nearest = nearest_steps(weight, grid).to(at::kFloat) * grid.scale;
  return at::where((error(solved) < error(nearest)).unsqueeze(-1), solved, nearest);
}

}  // namespace qatx::ptq
