#include <c10/util/Exception.h>
#include <c10/util/accumulate.h>

#include <algorithm>
#include <array>

#include "qatx/engine/operators/layout.h"
#include "qatx/engine/operators/operators.h"
#include "qatx/engine/operators/output.h"
#include "qatx/engine/operators/parallel.h"
#include "qatx/kernels/registry.h"

namespace qatx::engine {
namespace {

using Kernel = decltype(kernels::ElementwiseKernels::add);

// One loop over both operands: an operand that is repeated along it has stride 0.
struct Loop {
  int64_t size;
  std::array<int64_t, 2> strides;
};

// Sizes that two operands of a binary operator broadcast to, as in NumPy.
Shape broadcast(const std::string& name, const Shape& a, const Shape& b) {
  Shape out(std::max(a.size(), b.size()));
  for (size_t d = 0; d < out.size(); ++d) {
    const auto size = [&](const Shape& shape) {
      const size_t missing = out.size() - shape.size();
      return d < missing ? 1 : shape[d - missing];
    };
    const int64_t size_a = size(a);
    const int64_t size_b = size(b);
    TORCH_CHECK_VALUE(size_a == size_b || size_a == 1 || size_b == 1, "qatx program: '", name,
                      "' takes two inputs whose shapes broadcast, got ", at::IntArrayRef(a),
                      " and ", at::IntArrayRef(b));
    out[d] = size_a == 1 ? size_b : size_a;
  }
  return out;
}

// The loops over an output of shape `out`, the slowest first, as few as possible. The last one is
// what a kernel takes as a row: each operand lies side by side along it or is repeated.
std::vector<Loop> make_loops(std::span<const Shape> inputs, const Shape& out) {
  std::array<Shape, 2> strides;
  for (size_t i = 0; i < 2; ++i) {
    const Shape own = strides_of(inputs[i]);
    const size_t missing = out.size() - own.size();
    strides[i].assign(out.size(), 0);
    for (size_t d = 0; d < own.size(); ++d) {
      strides[i][d + missing] = inputs[i][d] == 1 ? 0 : own[d];
    }
  }
  std::vector<Loop> loops;
  for (const size_t d : memory_order(out.size())) {
    const Loop loop{out[d], {strides[0][d], strides[1][d]}};
    if (loop.size == 1) continue;
    const auto continues = [&](size_t i) {
      return loops.back().strides[i] == loop.strides[i] * loop.size;
    };
    if (!loops.empty() && continues(0) && continues(1)) {
      loops.back() = {loops.back().size * loop.size, loop.strides};
    } else {
      loops.push_back(loop);
    }
  }
  const auto is_row = [](const Loop& loop) {
    return *std::max_element(loop.strides.begin(), loop.strides.end()) == 1;
  };
  if (loops.empty() || !is_row(loops.back())) loops.push_back({1, {1, 1}});
  return loops;
}

// Inputs: two codes tensors whose shapes broadcast. Attribute clamp.
class Binary final : public Operator {
 public:
  // `negative`: the second operand counts as its negative.
  Binary(const NodeReader& node, Kernel kernel, bool negative = false)
      : name_(node.name()), kernel_(kernel), qparams_{node.input(0), node.input(1)}, output_(node) {
    node.check_input_count(2, 2);
    if (negative) qparams_[1].scale = -qparams_[1].scale;
  }

  Shape output_shape(std::span<const Shape> inputs) const override {
    return broadcast(name_, inputs[0], inputs[1]);
  }

  // Not where the samples of one operand meet another dimension of the other one.
  bool keeps_samples(std::span<const Shape> inputs, const std::vector<bool>& by_sample,
                     int64_t /*samples*/) const override {
    return (!by_sample[0] || inputs[0].size() >= inputs[1].size()) &&
           (!by_sample[1] || inputs[1].size() >= inputs[0].size());
  }

  std::unique_ptr<Step> plan(std::span<const Shape> inputs) const override;

 private:
  friend class BinaryStep;

  std::string name_;
  Kernel kernel_;
  std::array<kernels::QParams, 2> qparams_;
  Output output_;
};

class BinaryStep final : public Step {
 public:
  BinaryStep(const Binary& op, std::vector<Loop> loops)
      : op_(op), n_(loops.back().size), loops_(std::move(loops)) {
    row_.strides = loops_.back().strides;
    loops_.pop_back();
    for (const Loop& loop : loops_) row_.count *= loop.size;
  }

  void run(std::span<const Buffer> inputs, Buffer output) const override {
    if (loops_.empty()) {
      // Threads share the one row.
      parallel_rows(n_, 1, [&](int64_t begin, int64_t end) {
        run_rows(inputs, output, {row_.strides[0] * begin, row_.strides[1] * begin}, {0, 0}, begin,
                 1, end - begin);
      });
      return;
    }
    const Loop& rows = loops_.back();
    parallel_rows(row_.count, n_, [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end;) {
        // The rows up to the end of the loop around them.
        const int64_t first = row % rows.size;
        const int64_t count = std::min(end - row, rows.size - first);
        std::array<int64_t, 2> offsets{};
        int64_t rest = row;
        for (auto loop = loops_.rbegin(); loop != loops_.rend(); ++loop) {
          for (size_t i = 0; i < 2; ++i) offsets[i] += rest % loop->size * loop->strides[i];
          rest /= loop->size;
        }
        run_rows(inputs, output, offsets, rows.strides, row * n_, count, n_);
        row += count;
      }
    });
  }

 private:
  void run_rows(std::span<const Buffer> inputs, Buffer output, std::array<int64_t, 2> offsets,
                std::array<int64_t, 2> row_strides, int64_t out_offset, int64_t rows,
                int64_t n) const {
    std::array<kernels::Operand, 2> operands;
    for (size_t i = 0; i < 2; ++i) {
      operands[i] = {inputs[i].codes() + offsets[i], op_.qparams_[i], row_strides[i],
                     row_.strides[i] == 0};
    }
    op_.kernel_(operands[0], operands[1], rows, n, op_.output_.to(inputs, output, n, out_offset));
  }

  const Binary& op_;
  int64_t n_;
  std::vector<Loop> loops_;  // around the rows
  struct {
    int64_t count = 1;
    std::array<int64_t, 2> strides{};
  } row_;
};

std::unique_ptr<Step> Binary::plan(std::span<const Shape> inputs) const {
  return std::make_unique<BinaryStep>(*this, make_loops(inputs, output_shape(inputs)));
}

}  // namespace

std::unique_ptr<Operator> make_add(const NodeReader& node) {
  return std::make_unique<Binary>(node, kernels::active().elementwise.add);
}

// a + -b is a - b, bit for bit.
std::unique_ptr<Operator> make_sub(const NodeReader& node) {
  return std::make_unique<Binary>(node, kernels::active().elementwise.add, /*negative=*/true);
}

std::unique_ptr<Operator> make_div(const NodeReader& node) {
  return std::make_unique<Binary>(node, kernels::active().elementwise.div);
}

std::unique_ptr<Operator> make_mul(const NodeReader& node) {
  return std::make_unique<Binary>(node, kernels::active().elementwise.mul);
}

}  // namespace qatx::engine
