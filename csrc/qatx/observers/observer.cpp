#include "qatx/observers/observer.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <c10/util/Exception.h>

#include <atomic>
#include <bit>
#include <mutex>

#include "qatx/core/checks.h"
#include "qatx/observers/counter.h"
#include "qatx/observers/range_method.h"
#include "qatx/observers/rows.h"
#include "qatx/ops/cpu/kernel_arguments.h"

namespace qatx {
namespace {

constexpr int64_t kBlocksOfTask = kGrain / kernels::kObservedBlock;

int64_t blocks_of(int64_t n) { return (n + kernels::kObservedBlock - 1) / kernels::kObservedBlock; }

// What one batch adds to a state; its blocks may be counted by several threads.
class Batch {
 public:
  Batch(const State& state, int64_t n) : state_(state), sums_(static_cast<size_t>(blocks_of(n))) {}

  // Blocks begin to end - 1 of n elements.
  template <class T>
  void count(const T* x, int64_t n, int64_t begin, int64_t end, Counter& counter) {
    {
      const std::lock_guard lock(mutex_);
      counter.begin(state_);
    }
    for (int64_t block = begin; block < end; ++block) {
      const int64_t first = block * kernels::kObservedBlock;
      sums_[static_cast<size_t>(block)] =
          counter.add(x + first, std::min(kernels::kObservedBlock, n - first));
      if (counter.is_full()) flush(counter);
    }
    flush(counter);
  }

  // When all blocks are counted. Their sums are added up in order, whoever made them.
  void finish() {
    if (min_ > max_) return;
    double sum = 0.0;
    for (const double part : sums_) sum += part;
    ++state_.words->batch_count;
    add_to_exact_sum(state_.words->sum_magnitude, sum);
    add_to_exact_sum(state_.words->sum_batch_min, min_);
    add_to_exact_sum(state_.words->sum_batch_max, max_);
  }

 private:
  void flush(Counter& counter) {
    const std::lock_guard lock(mutex_);
    min_ = std::min(min_, counter.min());
    max_ = std::max(max_, counter.max());
    counter.flush(state_);
  }

  State state_;
  std::mutex mutex_;
  std::vector<double> sums_;
  double min_ = HUGE_VAL;
  double max_ = -HUGE_VAL;
};

template <class T>
void observe_row(const T* x, int64_t n, const State& state, Counter& counter) {
  Batch batch(state, n);
  batch.count(x, n, 0, blocks_of(n), counter);
  batch.finish();
}

// body(row, pointer to its elements, their number, a Counter of the thread) for all rows, in
// parallel.
template <class T, class Body>
void for_rows(const Rows& rows, int64_t bins, const Body& body) {
  const int64_t grain = std::max<int64_t>(1, kGrain / std::max<int64_t>(1, rows.row_length));
  at::parallel_for(0, rows.count, grain, [&](int64_t begin, int64_t end) {
    Counter counter(bins);
    for (int64_t row = begin; row < end; ++row) {
      body(row, data<T>(rows.elements) + rows.offset(row), rows.size(row), counter);
    }
  });
}

template <class T>
void observe_rows(const Rows& rows, int64_t* state, int64_t words, int64_t bins) {
  if (rows.count != 1) {
    for_rows<T>(rows, bins, [&](int64_t row, const T* x, int64_t n, Counter& counter) {
      observe_row(x, n, State(state + row * words, bins), counter);
    });
    return;
  }
  const int64_t n = rows.size(0);
  Batch batch(State(state, bins), n);
  at::parallel_for(0, blocks_of(n), kBlocksOfTask, [&](int64_t begin, int64_t end) {
    Counter counter(bins);
    batch.count(data<T>(rows.elements), n, begin, end, counter);
  });
  batch.finish();
}

void check_observed(const at::Tensor& x, const QuantSpec& spec,
                    const std::vector<int64_t>& scale_shape) {
  check_float(x, "x");
  TORCH_CHECK_VALUE(x.device().is_cpu(), "x must be on the CPU, got ", x.device());
  const std::vector<int64_t> shape = spec.scale_shape(x.sizes());
  TORCH_CHECK_VALUE(shape == scale_shape, "x must have scales of shape ",
                    c10::IntArrayRef(scale_shape), " for ", spec.repr(), ", got shape ", x.sizes());
}

// The results of a range method, by row.
class Choices {
 public:
  Choices(int64_t rows, const QuantSpec& spec, std::string_view method, const RangeOptions& options)
      : codes_{spec.quant_min(), spec.quant_max(), spec.symmetric()},
        choose_(find_range_method(method).choose),
        options_(options),
        results_(at::empty({5, rows}, at::kDouble)) {
    check_range_options(options);
  }

  // Whether there was a finite value to choose a range from.
  bool set(int64_t row, const State& state) {
    if (state.words->count == 0) return false;
    const Distribution distribution(state);
    const QuantizationError error(distribution);
    const Range range = choose_({distribution, error, codes_, options_});
    double* results = results_.mutable_data_ptr<double>() + row;
    const int64_t rows = results_.size(1);
    results[0] = range.low;
    results[rows] = range.high;
    results[2 * rows] = error.clipped_share(range, codes_);
    results[3 * rows] = error(range, codes_);
    results[4 * rows] = error.mean_square();
    return true;
  }

  ChosenRange finish(int64_t empty_rows, const QuantSpec& spec,
                     const std::vector<int64_t>& scale_shape) const {
    const char* kind = spec.group_size() ? " groups" : " channels";
    const std::string where = scale_shape.empty() ? ""
                                                  : " in " + std::to_string(empty_rows) + " of " +
                                                        std::to_string(results_.size(1)) + kind;
    TORCH_CHECK_VALUE(empty_rows == 0, "no finite value was observed", where);
    const auto result = [&](int64_t i) {
      return in_shape_of_scales(results_.select(0, i), spec, scale_shape);
    };
    return {result(0), result(1), result(2), result(3), result(4)};
  }

 private:
  Codes codes_;
  Range (*choose_)(const RangeProblem&);
  RangeOptions options_;
  at::Tensor results_;
};

int64_t product(const std::vector<int64_t>& shape) {
  int64_t result = 1;
  for (const int64_t size : shape) result *= size;
  return result;
}

int64_t default_bins(int64_t rows) { return rows == 1 ? Observer::kBins : Observer::kBinsOfMany; }

}  // namespace

std::vector<std::string> range_method_names() {
  std::vector<std::string> names;
  for (const RangeMethod& method : range_methods()) names.emplace_back(method.name);
  return names;
}

void check_range_method(std::string_view owner, std::string_view argument, std::string_view value) {
  std::string names;
  for (const RangeMethod& method : range_methods()) {
    if (method.name == value) return;
    names += (names.empty() ? "" : ", ") + std::string(method.name);
  }
  TORCH_CHECK_VALUE(false, owner, ": ", argument, " must be one of ", names, ", got '", value, "'");
}

Observer::Observer(const QuantSpec& spec, const std::vector<int64_t>& scale_shape, int64_t bins)
    : spec_(spec), scale_shape_(scale_shape), bins_(bins) {
  const int64_t rows = product(scale_shape);
  if (bins_ == 0) bins_ = default_bins(rows);
  TORCH_CHECK_VALUE(
      bins_ >= 16 && bins_ <= 32768 && std::has_single_bit(static_cast<uint64_t>(bins_)),
      "bins must be a power of two from 16 to 32768 (0: the default), got ", bins);
  const bool fits = !spec.axis()
                        ? scale_shape.empty()
                        : !scale_shape.empty() && (spec.group_size() || scale_shape.size() == 1);
  TORCH_CHECK_VALUE(fits && rows > 0, "scale_shape must be that of the scales for ", spec.repr(),
                    ", got ", c10::IntArrayRef(scale_shape));
  state_ = at::empty({rows, kStateWords + 2 * bins_}, at::kLong);
  for (int64_t row = 0; row < rows; ++row) {
    clear(State(state_.mutable_data_ptr<int64_t>() + row * state_.size(1), bins_));
  }
}

void Observer::observe(const at::Tensor& x) {
  check_observed(x, spec_, scale_shape_);
  if (x.numel() == 0) return;
  const Rows rows(x, spec_);
  with_element_type(x.scalar_type(), [&](auto element) {
    observe_rows<decltype(element)>(rows, state_.mutable_data_ptr<int64_t>(), state_.size(1),
                                    bins_);
  });
}

void Observer::merge(const Observer& other) {
  TORCH_CHECK_VALUE(other.scale_shape_ == scale_shape_ && other.bins_ == bins_, "other must have ",
                    bins_, " bins and scales of shape ", c10::IntArrayRef(scale_shape_), ", got ",
                    other.bins_, " bins and shape ", c10::IntArrayRef(other.scale_shape_));
  at::Tensor copy = other.state_.clone();  // merging may change the exponents of both
  for (int64_t row = 0; row < state_.size(0); ++row) {
    const int64_t offset = row * state_.size(1);
    qatx::merge(State(state_.mutable_data_ptr<int64_t>() + offset, bins_),
                State(copy.mutable_data_ptr<int64_t>() + offset, bins_));
  }
}

ChosenRange Observer::choose(const QuantSpec& spec, std::string_view method, double percentile,
                             double norm) const {
  TORCH_CHECK_VALUE(spec.axis() == spec_.axis() && spec.group_size() == spec_.group_size(),
                    "spec must have the axis and group_size of ", spec_.repr(), ", got ",
                    spec.repr());
  const int64_t rows = state_.size(0);
  Choices choices(rows, spec, method, {percentile, norm});
  std::atomic<int64_t> empty{0};
  int64_t* state = state_.mutable_data_ptr<int64_t>();
  at::parallel_for(0, rows, 1, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      if (!choices.set(row, State(state + row * state_.size(1), bins_))) ++empty;
    }
  });
  return choices.finish(empty, spec, scale_shape_);
}

ChosenRange Observer::choose_for(const at::Tensor& x, const QuantSpec& spec,
                                 std::string_view method, double percentile, double norm) {
  const std::vector<int64_t> scale_shape = spec.scale_shape(x.sizes());
  check_observed(x, spec, scale_shape);
  const Rows rows(x, spec);
  Choices choices(rows.count, spec, method, {percentile, norm});
  const int64_t bins = default_bins(rows.count);
  std::atomic<int64_t> empty{0};
  with_element_type(x.scalar_type(), [&](auto element) {
    using T = decltype(element);
    for_rows<T>(rows, bins, [&](int64_t row, const T* values, int64_t n, Counter& counter) {
      std::vector<int64_t> words(static_cast<size_t>(kStateWords + 2 * bins));
      const State state(words.data(), bins);
      clear(state);
      observe_row(values, n, state, counter);
      if (!choices.set(row, state)) ++empty;
    });
  });
  return choices.finish(empty, spec, scale_shape);
}

void Observer::set_state(const at::Tensor& state) {
  TORCH_CHECK_TYPE(state.scalar_type() == at::kLong, "state must be int64, got ",
                   c10::toString(state.scalar_type()));
  TORCH_CHECK_VALUE(state.sizes() == state_.sizes(), "state must have shape ", state_.sizes(),
                    ", got ", state.sizes());
  const at::Tensor copy = state.cpu().clone(at::MemoryFormat::Contiguous);
  for (int64_t row = 0; row < copy.size(0); ++row) {
    const State read(copy.mutable_data_ptr<int64_t>() + row * copy.size(1), bins_);
    int64_t counted = 0;
    bool negative = read.words->count < 0 || read.words->zeros < 0;
    for (int64_t k = 0; k < 2 * bins_; ++k) {
      negative |= read.counts[k] < 0;
      counted += read.counts[k];
    }
    TORCH_CHECK_VALUE(!negative && counted == read.words->count &&
                          read.words->zeros <= read.counts[0] &&
                          read.words->exponent >= kMinExponent && read.words->exponent <= 1024,
                      "state is damaged: the counts of row ", row, " do not add up");
  }
  state_ = copy;
}

template <class Of>
at::Tensor Observer::statistic(at::ScalarType dtype, const Of& of) const {
  const int64_t rows = state_.size(0);
  at::Tensor result = at::empty({rows}, dtype);
  using Value = decltype(of(std::declval<const State&>()));
  for (int64_t row = 0; row < rows; ++row) {
    const State state(state_.mutable_data_ptr<int64_t>() + row * state_.size(1), bins_);
    result.mutable_data_ptr<Value>()[row] = of(state);
  }
  return in_shape_of_scales(result, spec_, scale_shape_);
}

at::Tensor Observer::min() const {
  return statistic(at::kDouble, [](const State& state) { return state.min(); });
}
at::Tensor Observer::max() const {
  return statistic(at::kDouble, [](const State& state) { return state.max(); });
}
at::Tensor Observer::count() const {
  return statistic(at::kLong, [](const State& state) { return state.words->count; });
}
at::Tensor Observer::nan_count() const {
  return statistic(at::kLong, [](const State& state) { return state.words->nan_count; });
}
at::Tensor Observer::inf_count() const {
  return statistic(at::kLong, [](const State& state) { return state.words->inf_count; });
}
at::Tensor Observer::mean_magnitude() const {
  return statistic(at::kDouble, [](const State& state) {
    return value_of_exact_sum(state.words->sum_magnitude) / static_cast<double>(state.words->count);
  });
}
at::Tensor Observer::bin_width() const {
  return statistic(at::kDouble, [](const State& state) {
    return std::ldexp(1.0, static_cast<int>(state.words->exponent));
  });
}

at::Tensor Observer::histogram() const {
  const int64_t rows = state_.size(0);
  at::Tensor result = at::empty({rows, 2 * bins_}, at::kLong);
  for (int64_t row = 0; row < rows; ++row) {
    const State state(state_.mutable_data_ptr<int64_t>() + row * state_.size(1), bins_);
    int64_t* out = result.mutable_data_ptr<int64_t>() + row * 2 * bins_;
    std::reverse_copy(state.counts + bins_, state.counts + 2 * bins_, out);
    std::copy_n(state.counts, bins_, out + bins_);
  }
  return result;
}

}  // namespace qatx
