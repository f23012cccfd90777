#include <c10/util/Exception.h>
#include <c10/util/accumulate.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "qatx/engine/operators/float_rows.h"
#include "qatx/engine/operators/layout.h"
#include "qatx/engine/operators/operators.h"
#include "qatx/engine/operators/output.h"
#include "qatx/engine/operators/parallel.h"

namespace qatx::engine {
namespace {

// What attention does to its scores, in float32: scale (floats "scale" [1]: a factor, or a divisor
// where ints "divide" is [1]), apply a mask (the second input), and, for softmax, normalize along
// the last dimension. Input: float32 or codes of any number of dimensions but 4 and 5; [B, M, N]
// where there is a mask. A float32 mask is added. Of a bool one, the elements that are true (false,
// where ints "keep" is [1]) become the number of floats "fill". A mask is [N], [M or 1, N],
// [b, M or 1, N], which repeats after b (the heads) of B, or [b, h, M or 1, N]: one for each head
// of each sample, or for all of them where b or h is 1. Attribute clamp.
class Scores final : public Operator {
 public:
  Scores(const NodeReader& node, bool softmax)
      : name_(node.name()), softmax_(softmax), rows_(node), output_(node) {
    node.check_input_count(1, 2);
    has_mask_ = node.input_count() == 2;
    TORCH_CHECK_VALUE(!has_mask_ || !node.input_value(1).quantized(), "qatx program: '", name_,
                      "': the mask must be float32 or bool");
    replaces_ = has_mask_ && node.input_value(1).dtype == at::kBool;
    if (replaces_) {
      const std::vector<double> fill =
          node.has_floats("fill") ? node.float_list("fill") : std::vector<double>{};
      TORCH_CHECK_VALUE(fill.size() == 1 && !std::isnan(fill[0]), "qatx program: '", name_,
                        "': fill must be one number for a mask of bool");
      fill_ = static_cast<float>(fill[0]);
      keep_ = node.has_ints("keep") && node.ints("keep", 1, 0, 1)[0] == 1;
    }
    if (!node.has_floats("scale")) return;
    const std::vector<double> scale = node.float_list("scale");
    divide_ = node.has_ints("divide") && node.ints("divide", 1, 0, 1)[0] == 1;
    const bool valid = scale.size() == 1 && std::isfinite(static_cast<float>(scale[0])) &&
                       (!divide_ || static_cast<float>(scale[0]) != 0.0f);
    TORCH_CHECK_VALUE(valid, "qatx program: '", name_,
                      "': scale must be one finite number, and not 0 where it divides");
    scale_ = static_cast<float>(scale[0]);
  }

  Shape output_shape(std::span<const Shape> inputs) const override {
    const Shape& shape = inputs[0];
    TORCH_CHECK_VALUE(
        !shape.empty() && !is_image(shape.size()) && (!has_mask_ || shape.size() == 3),
        "qatx program: '", name_, "' takes inputs of ",
        has_mask_ ? "3 dimensions" : "any number of dimensions but 0, 4 and 5", ", got ",
        at::IntArrayRef(shape));
    if (has_mask_) mask_strides(shape, inputs[1]);
    return shape;
  }

  // Not where the first dimension of a mask counts rows or heads.
  bool keeps_samples(std::span<const Shape> inputs, const std::vector<bool>& by_sample,
                     int64_t /*samples*/) const override {
    if (!has_mask_ || !by_sample[1]) return true;
    const Shape& mask = inputs[1];
    return mask.size() == 4 || (mask.size() == 3 && mask[0] == inputs[0][0]);
  }

  std::unique_ptr<Step> plan(std::span<const Shape> inputs) const override;

 private:
  friend class ScoresStep;

  struct MaskStrides {
    int64_t sharing = 1;  // neighbours in the first dimension that meet the same part
    int64_t parts = 1;    // after which the first comes again
    int64_t part = 0;
    int64_t row = 0;
  };

  MaskStrides mask_strides(const Shape& x, const Shape& mask) const {
    Shape m = mask;
    while (m.size() < 3) m.insert(m.begin(), 1);
    bool fits = m.size() <= 4 && m.back() == x[2];
    MaskStrides strides;
    if (fits) {
      const int64_t rows = m[m.size() - 2];
      const int64_t heads = m.size() == 4 ? m[1] : 1;
      const int64_t parts = m[0] * heads;
      fits = (rows == 1 || rows == x[1]) && parts > 0 && x[0] % parts == 0 &&
             (heads == 1 || m[0] == 1 || parts == x[0]);
      if (fits) {
        const bool shared_by_heads = m.size() == 4 && heads == 1;
        strides = {shared_by_heads ? std::max<int64_t>(1, x[0] / parts) : 1, parts, rows * x[2],
                   rows == 1 ? 0 : x[2]};
      }
    }
    TORCH_CHECK_VALUE(fits, "qatx program: '", name_, "': a mask of shape ", at::IntArrayRef(mask),
                      " does not fit scores of shape ", at::IntArrayRef(x));
    return strides;
  }

  void run_rows(const kernels::Rows& rows, float* scratch,
                const kernels::Epilogue& epilogue) const {
    if (softmax_) {
      kernels::active().rows.softmax(rows, scratch, epilogue);
    } else {
      kernels::active().rows.affine(rows, epilogue);
    }
  }

  std::string name_;
  bool softmax_;
  FloatRows rows_;
  Output output_;
  bool has_mask_ = false;
  bool replaces_ = false;
  bool keep_ = false;
  float fill_ = 0.0f;
  bool divide_ = false;
  float scale_ = 1.0f;
};

class ScoresStep final : public Step {
 public:
  ScoresStep(const Scores& op, std::span<const Shape> inputs)
      : op_(op),
        n_(inputs[0].back()),
        rows_(c10::multiply_integers(inputs[0]) / n_),
        rows_of_part_(rows_) {
    if (op.has_mask_) {
      mask_ = op.mask_strides(inputs[0], inputs[1]);
      rows_of_part_ = inputs[0][1];
    }
  }

  void run(std::span<const Buffer> inputs, Buffer output) const override {
    parallel_rows(rows_, 8 * n_, [&](int64_t begin, int64_t end) {
      std::vector<float> scratch(static_cast<size_t>(op_.softmax_ ? n_ : 0));
      std::vector<float> replaced(static_cast<size_t>(op_.replaces_ ? n_ : 0));
      op_.rows_.visit(inputs[0], begin, end, n_, [&](const float* x, int64_t first, int64_t count) {
        // Up to the end of the part of the mask, or of all; row by row where a mask of bool has
        // several.
        for (int64_t row = first; row < first + count;) {
          const int64_t part = row / rows_of_part_;
          int64_t stop = std::min(first + count, (part + 1) * rows_of_part_);
          if (op_.replaces_ && mask_.row != 0) stop = row + 1;
          const int64_t offset =
              part / mask_.sharing % mask_.parts * mask_.part + row % rows_of_part_ * mask_.row;
          const float* mask = nullptr;
          if (op_.replaces_) {
            mask = replacements(inputs[1].mask() + offset, replaced);
          } else if (op_.has_mask_) {
            mask = inputs[1].floats() + offset;
          }
          op_.run_rows({x + (row - first) * n_, stop - row, n_, op_.scale_, op_.divide_, mask,
                        op_.replaces_ ? 0 : mask_.row, op_.replaces_},
                       scratch.data(), op_.output_.to(inputs, output, n_, row * n_));
          row = stop;
        }
      });
    });
  }

 private:
  // What the kernel takes: NaN where nothing is replaced.
  const float* replacements(const bool* mask, std::vector<float>& row) const {
    for (size_t i = 0; i < row.size(); ++i) {
      row[i] = mask[i] == op_.keep_ ? std::numeric_limits<float>::quiet_NaN() : op_.fill_;
    }
    return row.data();
  }

  const Scores& op_;
  int64_t n_;
  int64_t rows_;
  int64_t rows_of_part_;
  Scores::MaskStrides mask_;
};

std::unique_ptr<Step> Scores::plan(std::span<const Shape> inputs) const {
  return std::make_unique<ScoresStep>(*this, inputs);
}

}  // namespace

std::unique_ptr<Operator> make_affine(const NodeReader& node) {
  return std::make_unique<Scores>(node, /*softmax=*/false);
}

std::unique_ptr<Operator> make_softmax(const NodeReader& node) {
  return std::make_unique<Scores>(node, /*softmax=*/true);
}

}  // namespace qatx::engine
