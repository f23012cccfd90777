#pragma once

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#include "qatx/core/checks.h"

namespace qatx {

// Elements at which runs are cut for tasks and partial sums. Fixed, so that the order of additions
// does not depend on the number of threads; small enough that a float sum of a block stays
// accurate.
inline constexpr int64_t kBlock = 4096;
// Elements that one task handles at least.
inline constexpr int64_t kGrain = 32768;

// What one call of a kernel handles: `outer` runs of `inner` elements, or rows of channels.
struct Stretch {
  int64_t offset;   // of the first element
  int64_t outer;    // runs or rows
  int64_t inner;    // elements of a run, or channels
  int64_t qparams;  // index of the first parameters
  int64_t partial;  // index of the first partial result

  int64_t size() const { return outer * inner; }
};

// How a dense tensor lies in memory with respect to its quantization parameters, and how it is cut
// into tasks.
//
// Runs: elements that share parameters lie side by side (per tensor, per channel, per group along
// the last dimension). Rows: parameters change from element to element (per channel with the
// channel fastest, per group along another dimension).
//
// Reductions yield partial results, one for each run or part of one, or one for each channel of a
// part of the rows; they do not depend on the number of threads.
class Layout {
 public:
  // x is dense, and contiguous where there are groups; it has at least one element.
  Layout(const at::Tensor& x, const Granularity& granularity);

  bool rows() const { return rows_; }
  int64_t num_partials() const { return num_partials_; }

  // How many parameters, and partial results, belong to a stretch.
  int64_t num_qparams(const Stretch& stretch) const {
    return rows_ ? stretch.inner : stretch.outer;
  }

  // Calls body(Stretch, Scratch&) in parallel for stretches that cover x. Where `cut`, each stretch
  // has partial results of its own and is short; otherwise they are as long as a task. Scratch:
  // what a thread keeps from one stretch to the next.
  template <class Scratch, class Body>
  void parallel(bool cut, const Body& body) const {
    at::parallel_for(0, tasks_, grain_, [&](int64_t begin, int64_t end) {
      Scratch scratch;
      while (begin < end) {
        int64_t done = 0;
        const Stretch stretch =
            rows_ ? rows_from(begin, end, cut, done) : runs_from(begin, end, cut, done);
        if (stretch.size() > 0) body(stretch, scratch);
        begin += done;
      }
    });
  }

  // Calls body(partial, index of its parameters) for all partial results, in order.
  template <class Body>
  void for_partials(const Body& body) const {
    int64_t qparams = 0;
    for (int64_t i = 0; i < num_partials_; i += blocks_, ++qparams) {
      if (repeats_ && qparams == per_outer_) qparams = 0;
      for (int64_t block = 0; block < blocks_; ++block) body(i + block, qparams);
    }
  }

 private:
  void set_runs(int64_t outer, int64_t per_outer, int64_t inner, int64_t length, bool repeats);
  void set_rows(int64_t outer, int64_t channels);
  void set_grouped_rows(int64_t outer, int64_t length, int64_t group_size, int64_t channels);
  Stretch runs_from(int64_t task, int64_t end, bool cut, int64_t& done) const;
  Stretch rows_from(int64_t task, int64_t end, bool cut, int64_t& done) const;

  bool rows_ = false;
  // Whether the parameters are the same for every outer index (channels), or go on (groups).
  bool repeats_ = true;
  // Runs: of an outer index; the last of them may be shorter. Rows: channels.
  int64_t per_outer_ = 1;
  int64_t inner_ = 1;       // elements of a run, or rows of a part
  int64_t last_inner_ = 1;  // of the last run, or the last part, of an outer index
  int64_t length_ = 1;      // elements of an outer index
  int64_t parts_ = 1;       // rows: parts of an outer index
  int64_t blocks_ = 1;      // tasks of a run
  int64_t tasks_ = 1;
  int64_t grain_ = 1;
  int64_t num_partials_ = 1;
};

// x, or a copy of it, as Layout needs it.
at::Tensor dense(const at::Tensor& x, const Granularity& granularity);
// An uninitialised tensor of this dtype that lies in memory as `x` does.
at::Tensor empty_beside(const at::Tensor& x, at::ScalarType dtype);
// `t` lying in memory as `x` does: itself or a copy.
at::Tensor beside(const at::Tensor& t, const at::Tensor& x);
// `result`, which lies in memory as dense(x) does, with the strides that empty_like(x) has.
at::Tensor with_strides_of(const at::Tensor& result, const at::Tensor& x);

// For Layout::parallel() where a thread keeps nothing.
struct NoScratch {};

// Sums of partial results, by parameter, in double, in order, times `factor`, times the element of
// `factors` that belongs to the parameter where those are given.
template <class Real>
class Sums {
 public:
  // sums[i] *= factor * factors[i], in double (FakeQuantizeKernels::scale_sums).
  using ScaleKernel = void (*)(Real* sums, int64_t n, double factor, const Real* factors);

  // total: dense.
  Sums(const Layout& layout, const at::Tensor& total, ScaleKernel kernel, double factor = 1.0,
       const Real* factors = nullptr)
      : layout_(layout),
        size_(total.numel()),
        total_(total.mutable_data_ptr<Real>()),
        kernel_(kernel),
        factor_(factor),
        factors_(factors) {
    if (!is_direct()) partials_.resize(static_cast<size_t>(layout.num_partials()));
  }

  // Where a kernel writes the partial results of a stretch; then finish(stretch) is called.
  Real* part(const Stretch& stretch) {
    return (is_direct() ? total_ : partials_.data()) + stretch.partial;
  }
  void finish(const Stretch& stretch) {
    if (!is_direct()) return;
    kernel_(total_ + stretch.partial, layout_.num_qparams(stretch), factor_,
            factors_ == nullptr ? nullptr : factors_ + stretch.partial);
  }

  // Writes the totals, after all stretches.
  void finish() {
    if (is_direct()) return;
    std::vector<double> sums(static_cast<size_t>(size_), 0.0);
    layout_.for_partials([&](int64_t partial, int64_t p) {
      sums[static_cast<size_t>(p)] += static_cast<double>(partials_[static_cast<size_t>(partial)]);
    });
    for (int64_t p = 0; p < size_; ++p) {
      const double own = factors_ == nullptr ? factor_ : static_cast<double>(factors_[p]) * factor_;
      total_[p] = static_cast<Real>(sums[static_cast<size_t>(p)] * own);
    }
  }

 private:
  // One partial result for each total, in the same order (groups): no need to keep both.
  bool is_direct() const { return layout_.num_partials() == size_; }

  const Layout& layout_;
  int64_t size_;
  Real* total_;
  ScaleKernel kernel_;
  double factor_;
  const Real* factors_;
  std::vector<Real> partials_;
};

}  // namespace qatx
