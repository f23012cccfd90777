#include <c10/util/Exception.h>
#include <c10/util/accumulate.h>

#include <algorithm>
#include <functional>
#include <numeric>

#include "qatx/engine/moves.h"
#include "qatx/engine/operators/layout.h"
#include "qatx/engine/operators/operators.h"
#include "qatx/engine/operators/parallel.h"
#include "qatx/kernels/registry.h"

namespace qatx::engine {
namespace {

// One loop of a copy.
struct Loop {
  int64_t size;
  int64_t in;   // how far apart neighbours lie where they are read
  int64_t out;  // and where they are written
};

// Elements that go from one dense tensor to another.
class Copy {
 public:
  explicit Copy(std::vector<Loop> loops) {
    std::erase_if(loops, [](const Loop& loop) { return loop.size == 1; });
    std::sort(loops.begin(), loops.end(),
              [](const Loop& a, const Loop& b) { return a.out > b.out; });
    for (const Loop& loop : loops) {
      Loop* before = outer_.empty() ? nullptr : &outer_.back();
      if (before && before->in == loop.in * loop.size && before->out == loop.out * loop.size) {
        *before = {before->size * loop.size, loop.in, loop.out};
      } else {
        outer_.push_back(loop);
      }
    }
    if (!outer_.empty()) {
      inner_ = outer_.back();  // fills the output without gaps
      outer_.pop_back();
    }
    // A kernel takes two loops. Best is the one along which the input lies side by side.
    const auto rows =
        std::find_if(outer_.begin(), outer_.end(), [](const Loop& loop) { return loop.in == 1; });
    if (rows != outer_.end() || !outer_.empty()) {
      const auto taken = rows != outer_.end() ? rows : outer_.end() - 1;
      rows_ = *taken;
      outer_.erase(taken);
    }
    for (const Loop& loop : outer_) count_ *= loop.size;
  }

  // Whether all elements stay where they are.
  bool is_identity() const { return count_ == 1 && rows_.size == 1 && inner_.in == 1; }

  // Whether what is divided into blocks of `size` elements stays in them, and they in their order:
  // all loops over blocks read what they write.
  bool keeps_blocks(int64_t size) const {
    const auto keeps = [&](const Loop& loop) {
      return loop.out * loop.size <= size || loop.out == loop.in;
    };
    return std::all_of(outer_.begin(), outer_.end(), keeps) && keeps(rows_) && keeps(inner_);
  }

  // Of codes, or of float32 values.
  template <class T>
  void run(const T* in, T* out) const {
    constexpr int64_t kPart = 64;  // rows that a task takes at least
    const int64_t parts = (rows_.size + kPart - 1) / kPart;
    const int64_t bytes = kPart * inner_.size * static_cast<int64_t>(sizeof(T));
    parallel_rows(count_ * parts, bytes, [&](int64_t begin, int64_t end) {
      for (int64_t task = begin; task < end; ++task) {
        const int64_t first = task % parts * kPart;
        const int64_t count = std::min(kPart, rows_.size - first);
        int64_t from = first * rows_.in;
        int64_t to = first * rows_.out;
        int64_t rest = task / parts;
        for (auto loop = outer_.rbegin(); loop != outer_.rend(); ++loop) {
          from += rest % loop->size * loop->in;
          to += rest % loop->size * loop->out;
          rest /= loop->size;
        }
        copy(in + from, out + to, count);
      }
    });
  }

 private:
  void copy(const uint8_t* in, uint8_t* out, int64_t rows) const {
    kernels::active().elementwise.copy(in, rows_.in, inner_.in, out, rows_.out, rows, inner_.size);
  }

  void copy(const float* in, float* out, int64_t rows) const {
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t i = 0; i < inner_.size; ++i) {
        out[r * rows_.out + i] = in[r * rows_.in + i * inner_.in];
      }
    }
  }

  std::vector<Loop> outer_;
  int64_t count_ = 1;  // of all outer loops
  Loop rows_{1, 0, 0};
  Loop inner_{1, 1, 1};
};

// A tensor seen through steps that move its elements. Each dimension is a list of loops over the
// memory below it, so that dimensions can be merged and split without a copy.
class View {
 public:
  View(const Shape& shape, const Shape& strides) {
    for (size_t d = 0; d < shape.size(); ++d) {
      dims_.emplace_back();
      if (shape[d] != 1) dims_.back().push_back({shape[d], strides[d], 0});
    }
  }

  void permute(const Shape& order) {
    std::vector<std::vector<Loop>> dims;
    for (const int64_t d : order) dims.push_back(dims_[static_cast<size_t>(d)]);
    dims_ = std::move(dims);
  }

  // False where these sizes cut a loop into unequal parts: then there has to be a copy.
  bool reshape(const Shape& sizes) {
    std::vector<Loop> loops;
    for (const auto& dim : dims_) loops.insert(loops.end(), dim.begin(), dim.end());
    std::vector<std::vector<Loop>> dims(sizes.size());
    for (size_t d = sizes.size(); d-- > 0;) {
      for (int64_t missing = sizes[d]; missing != 1;) {
        Loop& last = loops.back();
        if (missing % last.size == 0) {
          dims[d].insert(dims[d].begin(), last);
          missing /= last.size;
          loops.pop_back();
        } else if (last.size % missing == 0) {
          dims[d].insert(dims[d].begin(), {missing, last.in, 0});
          last = {last.size / missing, last.in * missing, 0};
          missing = 1;
        } else {
          return false;
        }
      }
    }
    dims_ = std::move(dims);
    return true;
  }

  // Into a dense tensor with these strides.
  Copy copy(const Shape& strides) const {
    std::vector<Loop> loops;
    for (size_t d = 0; d < dims_.size(); ++d) {
      int64_t out = strides[d];
      for (auto loop = dims_[d].rbegin(); loop != dims_[d].rend(); ++loop) {
        loops.push_back({loop->size, loop->in, out});
        out *= loop->size;
      }
    }
    return Copy(std::move(loops));
  }

 private:
  std::vector<std::vector<Loop>> dims_;
};

Shape row_major(const Shape& shape) {
  Shape strides(shape.size());
  int64_t stride = 1;
  for (size_t d = shape.size(); d-- > 0;) {
    strides[d] = stride;
    stride *= shape[d];
  }
  return strides;
}

struct MoveStep {
  MoveKind kind;
  Shape arguments;
};

// Codes, or float32 values, get other names and places; what is read in the order of names (N, C,
// H, W) is what counts, not how it lies in memory. Attribute "steps": for each step its kind, the
// number of its arguments, and these.
class Move final : public Operator {
 public:
  explicit Move(const NodeReader& node)
      : name_(node.name()), codes_(node.input_value(0).quantized()) {
    node.check_input_count(1, 1);
    if (codes_) {
      node.check_same_qparams();
    } else {
      TORCH_CHECK_VALUE(!node.output().quantized(), "qatx program: move '", name_,
                        "' of float32 values must give float32");
    }
    const Shape numbers = node.int_list("steps");
    const auto left = [&](size_t i) { return static_cast<int64_t>(numbers.size() - i); };
    for (size_t i = 0; i < numbers.size();) {
      check(left(i) >= 2 && numbers[i] >= 0 && numbers[i] <= 3 && numbers[i + 1] >= 0 &&
                numbers[i + 1] <= std::min<int64_t>(left(i) - 2, 64),
            numbers);
      const auto begin = numbers.begin() + static_cast<std::ptrdiff_t>(i) + 2;
      steps_.push_back({static_cast<MoveKind>(numbers[i]), Shape(begin, begin + numbers[i + 1])});
      const auto& [kind, arguments] = steps_.back();
      const bool takes_two = kind == MoveKind::merge || kind == MoveKind::split;
      check(!takes_two || (arguments.size() == 2 && arguments[0] >= 0 &&
                           arguments[1] >= (kind == MoveKind::split ? 1 : arguments[0])),
            numbers);
      if (kind == MoveKind::reshape) {
        check(std::count(arguments.begin(), arguments.end(), -1) <= 1, numbers);
      } else if (kind == MoveKind::permute) {
        Shape sorted = arguments;
        std::sort(sorted.begin(), sorted.end());
        Shape all(arguments.size());
        std::iota(all.begin(), all.end(), int64_t{0});
        check(sorted == all, numbers);
      }
      i += 2 + arguments.size();
    }
  }

  Shape output_shape(std::span<const Shape> inputs) const override {
    Shape shape = inputs[0];
    for (const MoveStep& step : steps_) shape = after(shape, step, inputs[0]);
    return shape;
  }

  std::unique_ptr<Step> plan(std::span<const Shape> inputs) const override;

  bool keeps_samples(std::span<const Shape> inputs, const std::vector<bool>& /*by_sample*/,
                     int64_t samples) const override {
    const int64_t size = c10::multiply_integers(inputs[0]) / samples;
    const std::vector<Copy> all = copies(inputs[0]);
    return std::all_of(all.begin(), all.end(),
                       [&](const Copy& copy) { return copy.keeps_blocks(size); });
  }

  // Where all elements stay in their order.
  std::optional<size_t> in_place(std::span<const Shape> inputs) const override {
    const std::vector<Copy> all = copies(inputs[0]);
    return all.size() == 1 && all[0].is_identity() ? std::optional<size_t>(0) : std::nullopt;
  }

  bool passes_rows(std::span<const Shape> inputs) const override {
    return in_place(inputs) && row_size(inputs[0]) == row_size(output_shape(inputs));
  }

 private:
  // Mostly one copy; more where a step cannot be seen as a view of the ones before it.
  std::vector<Copy> copies(const Shape& input) const {
    std::vector<Copy> copies;
    Shape shape = input;
    View view(shape, strides_of(shape));
    for (const MoveStep& step : steps_) {
      const Shape next = after(shape, step, input);
      if (step.kind == MoveKind::permute) {
        view.permute(step.arguments);
      } else if (!view.reshape(next)) {
        copies.push_back(view.copy(row_major(shape)));
        view = View(next, row_major(next));
      }
      shape = next;
    }
    copies.push_back(view.copy(strides_of(shape)));
    return copies;
  }

  void check(bool condition, const Shape& numbers) const {
    TORCH_CHECK_VALUE(condition, "qatx program: move '", name_,
                      "': steps are damaged: ", at::IntArrayRef(numbers));
  }

  Shape after(const Shape& shape, const MoveStep& step, const Shape& input) const {
    const Shape& a = step.arguments;
    const auto check_shape = [&](bool condition, const char* what) {
      TORCH_CHECK_VALUE(condition, "qatx program: move '", name_, "' cannot ", what, " ",
                        at::IntArrayRef(a), " of a tensor of shape ", at::IntArrayRef(shape),
                        ", made from an input of shape ", at::IntArrayRef(input));
    };
    const auto dimensions = static_cast<int64_t>(shape.size());
    switch (step.kind) {
      case MoveKind::permute: {
        check_shape(a.size() == shape.size(), "permute dimensions");
        Shape out;
        for (const int64_t d : a) out.push_back(shape[static_cast<size_t>(d)]);
        return out;
      }
      case MoveKind::merge: {
        check_shape(a[1] < dimensions, "merge dimensions");
        Shape out(shape.begin(), shape.begin() + a[0]);
        const auto end = shape.begin() + a[1] + 1;
        out.push_back(std::accumulate(shape.begin() + a[0], end, int64_t{1}, std::multiplies<>()));
        out.insert(out.end(), end, shape.end());
        return out;
      }
      case MoveKind::split: {
        const auto d = static_cast<size_t>(a[0]);
        check_shape(a[0] < dimensions && shape[d] % a[1] == 0, "split off [dimension, size]");
        Shape out = shape;
        out[d] /= a[1];
        out.insert(out.begin() + a[0] + 1, a[1]);
        return out;
      }
      case MoveKind::reshape:
        return reshaped(shape, a, check_shape);
    }
    TORCH_INTERNAL_ASSERT(false);
  }

  static Shape reshaped(const Shape& shape, const Shape& sizes, const auto& check_shape) {
    Shape out = sizes;
    for (int64_t& size : out) {
      if (size >= -1) continue;
      // In unsigned numbers: a damaged one may be the least of all.
      const uint64_t kept = uint64_t{0} - static_cast<uint64_t>(size) - 2;
      check_shape(kept < shape.size(), "make the sizes (-2 - d: that of dimension d)");
      size = shape[static_cast<size_t>(kept)];
    }
    // In double: the sizes of a damaged program may have a product that an int64 cannot hold.
    const auto product = [](const Shape& s) {
      return std::accumulate(s.begin(), s.end(), 1.0, std::multiplies<>());
    };
    const auto open = std::find(out.begin(), out.end(), -1);
    if (open != out.end()) {
      // What is kept on both sides stays out of it, for it may be 0.
      double rest = 1;
      double given = 1;
      std::vector<bool> kept(shape.size(), false);
      for (size_t d = 0; d < sizes.size(); ++d) {
        const auto from = static_cast<uint64_t>(-2 - sizes[d]);
        if (sizes[d] < -1 && !kept[from]) {
          kept[from] = true;
        } else if (sizes[d] != -1) {
          given *= static_cast<double>(out[d]);
        }
      }
      for (size_t d = 0; d < shape.size(); ++d)
        rest *= kept[d] ? 1.0 : static_cast<double>(shape[d]);
      check_shape(given > 0 && given < 0x1p62, "make the sizes");
      *open = static_cast<int64_t>(rest) / static_cast<int64_t>(given);
    }
    check_shape(product(out) == product(shape), "make the sizes (-2 - d: that of dimension d)");
    return out;
  }

  std::string name_;
  bool codes_;
  std::vector<MoveStep> steps_;
};

class MoveCopies final : public Step {
 public:
  MoveCopies(std::vector<Copy> copies, int64_t numel, bool codes)
      : copies_(std::move(copies)), numel_(static_cast<size_t>(numel)), codes_(codes) {}

  void run(std::span<const Buffer> inputs, Buffer output) const override {
    if (codes_) {
      run(inputs[0].codes(), static_cast<uint8_t*>(output.data));
    } else {
      run(inputs[0].floats(), static_cast<float*>(output.data));
    }
  }

 private:
  template <class T>
  void run(const T* in, T* out) const {
    if (in == out) return;  // in place: nothing moves
    std::unique_ptr<T[]> before;
    for (size_t c = 0; c + 1 < copies_.size(); ++c) {
      std::unique_ptr<T[]> between(new T[numel_]);
      copies_[c].run(in, between.get());
      before = std::move(between);
      in = before.get();
    }
    copies_.back().run(in, out);
  }

  std::vector<Copy> copies_;
  size_t numel_;
  bool codes_;
};

std::unique_ptr<Step> Move::plan(std::span<const Shape> inputs) const {
  return std::make_unique<MoveCopies>(copies(inputs[0]), c10::multiply_integers(inputs[0]), codes_);
}

}  // namespace

std::unique_ptr<Operator> make_move(const NodeReader& node) { return std::make_unique<Move>(node); }

}  // namespace qatx::engine
