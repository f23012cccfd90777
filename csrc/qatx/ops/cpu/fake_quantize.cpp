#include "qatx/ops/fake_quantize.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <torch/library.h>

#include <algorithm>
#include <vector>

#include "qatx/core/qparams.h"
#include "qatx/kernels/registry.h"

namespace qatx {
namespace {

using kernels::ChannelQParams;
using kernels::kLanes;
using kernels::QuantRange;

// Elements that one task handles at least, and at which sums are cut into partial sums. Fixed, so
// that the order of additions does not depend on the number of threads; small enough that a float
// sum of a block stays accurate.
constexpr int64_t kBlock = 4096;
constexpr int64_t kGrain = 32768;

// x in memory order: [outer][channels][inner]. Per tensor is one channel.
struct Layout {
  int64_t outer;
  int64_t channels;
  int64_t inner;
  // Channel fastest: vectors run across channels.
  bool channels_last() const { return inner == 1 && channels > 1; }
};

Layout layout_of(const at::Tensor& x, std::optional<int64_t> axis) {
  if (!axis) return {1, 1, x.numel()};
  // Dense tensors only: a dimension with a larger stride lies outside.
  Layout layout{1, x.size(*axis), 1};
  for (int64_t d = 0; d < x.dim(); ++d) {
    if (d == *axis || x.size(d) == 1) continue;
    (x.stride(d) > x.stride(*axis) ? layout.outer : layout.inner) *= x.size(d);
  }
  // With one channel its stride says nothing about where the other dimensions lie.
  if (layout.channels == 1) return {1, 1, x.numel()};
  return layout;
}

at::Tensor dense(const at::Tensor& x) {
  // Not contiguous(): the meta kernel promises empty_like's strides.
  return x.is_non_overlapping_and_dense() ? x : at::empty_like(x).copy_(x);
}

ChannelQParams channel(const CheckedQParams& qparams, int64_t c) {
  const auto i = static_cast<size_t>(c);
  return {qparams.scale[i], qparams.inv_scale[i], qparams.zero_point[i]};
}

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

at::Tensor forward_cpu(const at::Tensor& x, const at::Tensor& scale, const at::Tensor& zero_point,
                       int64_t quant_min, int64_t quant_max, std::optional<int64_t> axis,
                       double /*grad_scale*/) {
  const auto wrapped = check_fake_quantize(x, scale, zero_point, quant_min, quant_max, axis);
  const CheckedQParams qparams = read_qparams(scale, zero_point, quant_min, quant_max);
  const at::Tensor input = dense(x);
  at::Tensor output = at::empty_like(input);
  if (x.numel() == 0) return output;

  const QuantRange range{static_cast<float>(quant_min), static_cast<float>(quant_max)};
  const Layout layout = layout_of(input, wrapped);
  const auto& kernel = kernels::active().fake_quantize;
  const float* in = input.const_data_ptr<float>();
  float* out = output.mutable_data_ptr<float>();

  if (layout.channels_last()) {
    const int64_t grain = std::max<int64_t>(1, kGrain / layout.channels);
    at::parallel_for(0, layout.outer, grain, [&](int64_t begin, int64_t end) {
      const int64_t offset = begin * layout.channels;
      kernel.forward_rows(in + offset, out + offset, end - begin, layout.channels,
                          qparams.scale.data(), qparams.inv_scale.data(), qparams.zero_point.data(),
                          range);
    });
    return output;
  }
  const int64_t blocks = ceil_div(layout.inner, kBlock);
  const int64_t grain = std::max<int64_t>(1, kGrain / std::min(layout.inner, kBlock));
  at::parallel_for(0, layout.outer * layout.channels * blocks, grain, [&](int64_t i, int64_t end) {
    while (i < end) {
      // As much of the run as this task has: one call, not one for each block.
      const int64_t run = i / blocks;
      const int64_t last = std::min(end, (run + 1) * blocks);
      const int64_t begin_element = (i - run * blocks) * kBlock;
      const int64_t end_element = std::min((last - run * blocks) * kBlock, layout.inner);
      const int64_t offset = run * layout.inner + begin_element;
      kernel.forward_run(in + offset, out + offset, end_element - begin_element,
                         channel(qparams, run % layout.channels), range);
      i = last;
    }
  });
  return output;
}

float sum_lanes(float* lanes) {
  for (int width = kLanes / 2; width > 0; width /= 2) {
    for (int i = 0; i < width; ++i) lanes[i] += lanes[i + width];
  }
  return lanes[0];
}

// Partial sums of one gradient: [parts][channels], added up in double, in order.
class PartialSums {
 public:
  PartialSums(int64_t parts, int64_t channels)
      : channels_(channels), sums_(static_cast<size_t>(parts * channels), 0.0f) {}

  float* part(int64_t p) { return sums_.data() + p * channels_; }

  void write_total(at::Tensor& gradient, double grad_scale) const {
    float* out = gradient.mutable_data_ptr<float>();
    std::vector<double> total(static_cast<size_t>(channels_), 0.0);
    for (size_t i = 0; i < sums_.size(); ++i) {
      total[i % static_cast<size_t>(channels_)] += static_cast<double>(sums_[i]);
    }
    for (size_t c = 0; c < total.size(); ++c) out[c] = static_cast<float>(total[c] * grad_scale);
  }

 private:
  int64_t channels_;
  std::vector<float> sums_;
};

std::tuple<at::Tensor, at::Tensor, at::Tensor> backward_cpu(
    const at::Tensor& grad, const at::Tensor& x, const at::Tensor& scale,
    const at::Tensor& zero_point, int64_t quant_min, int64_t quant_max, std::optional<int64_t> axis,
    double grad_scale) {
  const auto wrapped = check_fake_quantize(x, scale, zero_point, quant_min, quant_max, axis);
  check_fake_quantize_grad(grad, x);
  const CheckedQParams qparams = read_qparams(scale, zero_point, quant_min, quant_max);
  const at::Tensor input = dense(x);
  at::Tensor dx = at::empty_like(input);
  // Gradients of non-dense scales (an expanded view, say) are dense.
  at::Tensor dscale = at::empty(scale.sizes(), scale.options());
  at::Tensor dzero_point = at::empty(zero_point.sizes(), zero_point.options());
  if (x.numel() == 0) return {dx, dscale.zero_(), dzero_point.zero_()};

  const at::Tensor gradient =
      grad.strides() == input.strides() ? grad : at::empty_like(input).copy_(grad);
  const QuantRange range{static_cast<float>(quant_min), static_cast<float>(quant_max)};
  const Layout layout = layout_of(input, wrapped);
  const auto& kernel = kernels::active().fake_quantize;
  const float* g = gradient.const_data_ptr<float>();
  const float* in = input.const_data_ptr<float>();
  float* out = dx.mutable_data_ptr<float>();

  if (layout.channels_last()) {
    const int64_t rows = std::clamp<int64_t>(4 * kBlock / layout.channels, 16, 1024);
    const int64_t parts = ceil_div(layout.outer, rows);
    PartialSums scale_sums(parts, layout.channels);
    PartialSums zero_point_sums(parts, layout.channels);
    const int64_t grain = std::max<int64_t>(1, kGrain / (rows * layout.channels));
    at::parallel_for(0, parts, grain, [&](int64_t begin, int64_t end) {
      for (int64_t p = begin; p < end; ++p) {
        const int64_t offset = p * rows * layout.channels;
        kernel.backward_rows(
            g + offset, in + offset, out + offset, std::min(rows, layout.outer - p * rows),
            layout.channels, qparams.scale.data(), qparams.inv_scale.data(),
            qparams.zero_point.data(), range, scale_sums.part(p), zero_point_sums.part(p));
      }
    });
    scale_sums.write_total(dscale, grad_scale);
    zero_point_sums.write_total(dzero_point, grad_scale);
    return {dx, dscale, dzero_point};
  }

  // A part is a block of a long run, or a channel's runs in several outer indices where runs are
  // short.
  const int64_t blocks = ceil_div(layout.inner, kBlock);
  const int64_t outer_per_part = std::max<int64_t>(1, kBlock / layout.inner);
  const int64_t outer_parts = ceil_div(layout.outer, outer_per_part);
  PartialSums scale_sums(outer_parts * blocks, layout.channels);
  PartialSums zero_point_sums(outer_parts * blocks, layout.channels);
  const int64_t tasks = outer_parts * blocks * layout.channels;
  const int64_t part_elements =
      std::min(layout.inner, kBlock) * std::min(outer_per_part, layout.outer);
  const int64_t grain = std::max<int64_t>(1, kGrain / part_elements);
  at::parallel_for(0, tasks, grain, [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task) {
      const int64_t block = task % blocks;
      const int64_t c = task / blocks % layout.channels;
      const int64_t outer_part = task / blocks / layout.channels;
      const int64_t outer_begin = outer_part * outer_per_part;
      const int64_t outer_end = std::min(outer_begin + outer_per_part, layout.outer);
      const int64_t n = std::min(kBlock, layout.inner - block * kBlock);
      float scale_lanes[kLanes] = {};
      float zero_point_lanes[kLanes] = {};
      for (int64_t o = outer_begin; o < outer_end; ++o) {
        const int64_t offset = (o * layout.channels + c) * layout.inner + block * kBlock;
        kernel.backward_run(g + offset, in + offset, out + offset, n, channel(qparams, c), range,
                            scale_lanes, zero_point_lanes);
      }
      const int64_t part = outer_part * blocks + block;
      scale_sums.part(part)[c] = sum_lanes(scale_lanes);
      zero_point_sums.part(part)[c] = sum_lanes(zero_point_lanes);
    }
  });
  scale_sums.write_total(dscale, grad_scale);
  zero_point_sums.write_total(dzero_point, grad_scale);
  return {dx, dscale, dzero_point};
}

}  // namespace

TORCH_LIBRARY_IMPL(qatx, CPU, m) {
  m.impl("fake_quantize", forward_cpu);
  m.impl("fake_quantize_backward", backward_cpu);
}

}  // namespace qatx
