#include <c10/util/Exception.h>

#include <algorithm>
#include <memory>
#include <new>

#include "qatx/core/rounding.h"
#include "qatx/engine/operators/gemm.h"
#include "qatx/engine/operators/operators.h"
#include "qatx/engine/operators/output.h"
#include "qatx/engine/operators/parallel.h"
#include "qatx/kernels/registry.h"

namespace qatx::engine {
namespace {

// Products of two tensors of codes: [B, M, K] and [B, N, K] (the second one transposed) give
// [B, M, N]. The second takes the place of a layer's weights: its codes less their zero point have
// to fit 8 signed bits. Attribute clamp.
class MatMul final : public Operator {
 public:
  explicit MatMul(const NodeReader& node)
      : name_(node.name()), a_(node.input(0)), b_(node.input(1)), output_(node) {
    node.check_input_count(2, 2);
    TORCH_CHECK_VALUE(fits_weight(b_), "qatx program: matmul '", name_,
                      "': codes of the second input less their zero point must fit 8 signed bits");
    TORCH_CHECK_VALUE(is_valid_scale(a_.scale * b_.scale), "qatx program: matmul '", name_,
                      "': the product of the scales must be in [2^-126, 2^126], got ", a_.scale,
                      " times ", b_.scale);
  }

  Shape output_shape(std::span<const Shape> inputs) const override {
    const Shape& a = inputs[0];
    const Shape& b = inputs[1];
    TORCH_CHECK_VALUE(a.size() == 3 && b.size() == 3 && a[0] == b[0] && a[2] == b[2],
                      "qatx program: matmul '", name_,
                      "' takes inputs [B, M, K] and [B, N, K], got ", at::IntArrayRef(a), " and ",
                      at::IntArrayRef(b));
    TORCH_CHECK_VALUE(a[2] <= kMostProducts, "qatx program: matmul '", name_, "' sums at most ",
                      kMostProducts, " products, got ", a[2]);
    return {a[0], a[1], b[1]};
  }

  std::unique_ptr<Step> plan(std::span<const Shape> inputs) const override;

 private:
  friend class MatMulStep;

  std::string name_;
  kernels::QParams a_;
  kernels::QParams b_;
  Output output_;
};

class MatMulStep final : public Step {
 public:
  MatMulStep(const MatMul& op, const Shape& a, const Shape& b)
      : op_(op),
        kernel_(kernels::active().gemm),
        batches_(a[0]),
        m_(a[1]),
        n_(b[1]),
        k_(a[2]),
        blocks_((n_ + kernel_.block - 1) / kernel_.block),
        scale_(static_cast<size_t>(blocks_ * kernel_.block), op.a_.scale * op.b_.scale),
        bias_(scale_.size(), 0.0f) {}

  void run(std::span<const Buffer> inputs, Buffer output) const override {
    const int64_t row_work = n_ * k_ / 32 + 1;
    if (batches_ >= at::get_num_threads()) {
      parallel_rows(batches_, m_ * row_work, [&](int64_t begin, int64_t end) {
        Operand operand(*this);
        for (int64_t batch = begin; batch < end; ++batch) {
          operand.take(inputs[1].codes() + batch * n_ * k_);
          multiply(operand, inputs, output, batch, 0, m_);
        }
      });
      return;
    }
    Operand operand(*this);
    for (int64_t batch = 0; batch < batches_; ++batch) {
      operand.take(inputs[1].codes() + batch * n_ * k_);
      const int64_t tile = kernel_.row_tile;
      parallel_rows((m_ + tile - 1) / tile, tile * row_work, [&](int64_t begin, int64_t end) {
        multiply(operand, inputs, output, batch, begin * tile, std::min(end * tile, m_));
      });
    }
  }

 private:
  // The second operand of one product as the kernel takes weights.
  class Operand {
   public:
    explicit Operand(const MatMulStep& step)
        : step_(step),
          packed_(static_cast<uint8_t*>(::operator new(
              kernels::packed_bytes(step.kernel_, step.n_, 1, step.k_), std::align_val_t{64}))),
          steps_(new int8_t[static_cast<size_t>(step.n_ * step.k_)]),
          start_(new int32_t[step.scale_.size()]()) {}

    void take(const uint8_t* codes) {
      const auto& center = kernels::active().elementwise.center;
      for (int64_t c = 0; c < step_.n_; ++c) {
        const int32_t sum = center(codes + c * step_.k_, steps_.get() + c * step_.k_, step_.k_,
                                   static_cast<uint8_t>(step_.op_.b_.zero_point));
        start_[static_cast<size_t>(c)] = -step_.op_.a_.zero_point * sum;
      }
      step_.kernel_.pack(steps_.get(), step_.n_, 1, step_.k_, packed_.get());
    }

    const void* packed() const { return packed_.get(); }
    const int32_t* start() const { return start_.get(); }

   private:
    struct Delete {
      void operator()(uint8_t* bytes) const { ::operator delete(bytes, std::align_val_t{64}); }
    };

    const MatMulStep& step_;
    std::unique_ptr<uint8_t[], Delete> packed_;
    std::unique_ptr<int8_t[]> steps_;
    std::unique_ptr<int32_t[]> start_;
  };

  void multiply(const Operand& operand, std::span<const Buffer> inputs, Buffer output,
                int64_t batch, int64_t begin, int64_t end) const {
    static constexpr int64_t kOffset = 0;
    kernels::Epilogue epilogue = op_.output_.to(inputs, output, n_, (batch * m_ + begin) * n_);
    epilogue.scale = scale_.data();
    epilogue.bias = bias_.data();
    const int64_t rows = end - begin;
    const kernels::Grid::Piece piece{inputs[0].codes() + (batch * m_ + begin) * k_, rows};
    const kernels::Grid grid{&piece, 1, rows, 1, 1, k_, &kOffset, 1};
    kernel_.run({grid, k_, n_, operand.packed(), 0, operand.start(), epilogue}, 0, blocks_);
  }

  const MatMul& op_;
  const kernels::GemmKernel& kernel_;
  int64_t batches_;
  int64_t m_;
  int64_t n_;
  int64_t k_;
  int64_t blocks_;
  std::vector<float> scale_;  // padded to whole blocks
  std::vector<float> bias_;
};

std::unique_ptr<Step> MatMul::plan(std::span<const Shape> inputs) const {
  return std::make_unique<MatMulStep>(*this, inputs[0], inputs[1]);
}

}  // namespace

std::unique_ptr<Operator> make_matmul(const NodeReader& node) {
  return std::make_unique<MatMul>(node);
}

}  // namespace qatx::engine
