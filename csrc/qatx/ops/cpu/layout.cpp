#include "qatx/ops/cpu/layout.h"

#include <ATen/ops/empty_like.h>

namespace qatx {
namespace {

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace

Layout::Layout(const at::Tensor& x, const Granularity& granularity) {
  const auto& [axis, group_size] = granularity;
  if (!axis || (!group_size && x.size(*axis) == 1)) {
    set_runs(1, 1, x.numel(), x.numel(), true);
    return;
  }
  const int64_t size = x.size(*axis);
  int64_t outer = 1;
  int64_t inner = 1;
  for (int64_t d = 0; d < x.dim(); ++d) {
    if (d == *axis || x.size(d) == 1) continue;
    // Where x is dense, a dimension with a larger stride lies outside. Groups: x is contiguous.
    const bool outside = group_size ? d < *axis : x.stride(d) > x.stride(*axis);
    (outside ? outer : inner) *= x.size(d);
  }
  if (group_size && inner > 1) {
    set_grouped_rows(outer, size, std::min(*group_size, size), inner);
  } else if (group_size) {
    set_runs(outer, ceil_div(size, *group_size), std::min(*group_size, size), size, false);
  } else if (inner == 1) {
    set_rows(outer, size);
  } else {
    set_runs(outer, size, inner, size * inner, true);
  }
}

void Layout::set_runs(int64_t outer, int64_t per_outer, int64_t inner, int64_t length,
                      bool repeats) {
  repeats_ = repeats;
  per_outer_ = per_outer;
  inner_ = inner;
  length_ = length;
  last_inner_ = length - (per_outer - 1) * inner;
  blocks_ = ceil_div(inner, kBlock);
  tasks_ = num_partials_ = outer * per_outer * blocks_;
  grain_ = std::max<int64_t>(1, kGrain / std::min(inner, kBlock));
}

void Layout::set_rows(int64_t outer, int64_t channels) {
  rows_ = true;
  per_outer_ = channels;
  inner_ = std::clamp<int64_t>(4 * kBlock / channels, 16, 1024);
  length_ = outer * channels;
  tasks_ = parts_ = ceil_div(outer, inner_);
  last_inner_ = outer - (parts_ - 1) * inner_;
  grain_ = std::max<int64_t>(1, kGrain / (inner_ * channels));
  num_partials_ = tasks_ * channels;
}

void Layout::set_grouped_rows(int64_t outer, int64_t length, int64_t group_size, int64_t channels) {
  rows_ = true;
  repeats_ = false;
  per_outer_ = channels;
  inner_ = group_size;
  length_ = length * channels;
  parts_ = ceil_div(length, group_size);
  last_inner_ = length - (parts_ - 1) * group_size;
  tasks_ = outer * parts_;
  grain_ = std::max<int64_t>(1, kGrain / (group_size * channels));
  num_partials_ = tasks_ * channels;
}

Stretch Layout::runs_from(int64_t task, int64_t end, bool cut, int64_t& done) const {
  const int64_t run = task / blocks_;
  const int64_t i = run % per_outer_;
  const int64_t offset = run / per_outer_ * length_ + i * inner_;
  const int64_t qparams = repeats_ ? i : run;
  const bool is_last = i == per_outer_ - 1;
  const int64_t inner = is_last ? last_inner_ : inner_;
  if (blocks_ > 1) {
    const int64_t block = task - run * blocks_;
    done = cut ? 1 : std::min(end, (run + 1) * blocks_) - task;
    const int64_t first = block * kBlock;
    const int64_t last = std::min((block + done) * kBlock, inner);
    return {offset + first, 1, std::max<int64_t>(0, last - first), qparams, task};
  }
  if (is_last && last_inner_ != inner_) {
    done = 1;
  } else {
    const bool goes_on = !repeats_ && last_inner_ == inner_;
    const int64_t here = last_inner_ == inner_ ? per_outer_ - i : per_outer_ - 1 - i;
    done = goes_on ? end - task : std::min(end - task, here);
    if (cut) done = std::min(done, std::max<int64_t>(1, kBlock / inner_));
  }
  return {offset, done, inner, qparams, task};
}

Stretch Layout::rows_from(int64_t task, int64_t end, bool cut, int64_t& done) const {
  const int64_t part = task % parts_;
  const int64_t offset = task / parts_ * length_ + part * inner_ * per_outer_;
  if (!repeats_) {
    done = 1;
    const int64_t rows = part == parts_ - 1 ? last_inner_ : inner_;
    return {offset, rows, per_outer_, task * per_outer_, task * per_outer_};
  }
  done = cut ? 1 : end - task;
  const int64_t rows = (done - 1) * inner_ + (task + done == parts_ ? last_inner_ : inner_);
  return {offset, rows, per_outer_, 0, task * per_outer_};
}

at::Tensor dense(const at::Tensor& x, const Granularity& granularity) {
  if (granularity.group_size) return x.contiguous();
  // Not contiguous(): the meta kernels promise empty_like's strides.
  return x.is_non_overlapping_and_dense() ? x : at::empty_like(x).copy_(x);
}

at::Tensor empty_beside(const at::Tensor& x, at::ScalarType dtype) {
  return at::empty_like(x, x.options().dtype(dtype));
}

at::Tensor beside(const at::Tensor& t, const at::Tensor& x) {
  return t.strides() == x.strides() ? t : at::empty_like(x, t.options()).copy_(t);
}

at::Tensor with_strides_of(const at::Tensor& result, const at::Tensor& x) {
  if (x.is_contiguous() || result.strides() == x.strides()) return result;
  return at::empty_like(x, result.options()).copy_(result);
}

}  // namespace qatx
