#include <c10/util/Exception.h>
#include <c10/util/accumulate.h>

#include <algorithm>
#include <cstring>

#include "qatx/core/rounding.h"
#include "qatx/engine/operators/layout.h"
#include "qatx/engine/operators/operators.h"
#include "qatx/engine/operators/output.h"
#include "qatx/engine/operators/parallel.h"
#include "qatx/kernels/registry.h"

namespace qatx::engine {
namespace {

enum class Bags : int64_t { none = 0, sum = 1, mean = 2 };

// Rows of a table, looked up. Inputs: indices of any number of dimensions that leaves no image; for
// bags [M], and where each bag begins among them, [N]. Tensors: weight uint8 [V, D] of codes whose
// zero point is 128, weight_scale float32 [V]. Ints: bags [0 none, 1 sum, 2 mean]. Attribute clamp.
// A bag's rows are added in their order; of an empty one the result is 0. Without weight_scale, and
// then without bags and clamp, too, weight consists of codes of the output.
class Embedding final : public Operator {
 public:
  explicit Embedding(const NodeReader& node)
      : name_(node.name()), output_(node), bags_(static_cast<Bags>(node.ints("bags", 1, 0, 2)[0])) {
    const at::Tensor weight = node.tensor("weight", at::kByte, 2);
    table_rows_ = weight.size(0);
    width_ = weight.size(1);
    table_ = weight.view(-1);
    const size_t inputs = bags_ == Bags::none ? 1 : 2;
    node.check_input_count(inputs, inputs);
    for (size_t i = 0; i < inputs; ++i) {
      TORCH_CHECK_VALUE(node.input_value(i).dtype == at::kLong, "qatx program: embedding '", name_,
                        "': input ", i, " must consist of indices");
    }
    if (!node.has_tensor("weight_scale")) {
      check_codes(node);
      return;
    }
    scale_ = node.tensor("weight_scale", at::kFloat, 1);
    TORCH_CHECK_VALUE(scale_.numel() == table_rows_, "qatx program: embedding '", name_,
                      "': weight_scale must have ", table_rows_,
                      " elements, one for each row, got ", scale_.numel());
    for (int64_t v = 0; v < scale_.numel(); ++v) {
      TORCH_CHECK_VALUE(is_valid_scale(scale_.const_data_ptr<float>()[v]),
                        "qatx program: embedding '", name_, "': weight_scale[", v,
                        "] must be in [2^-126, 2^126], got ", scale_.const_data_ptr<float>()[v]);
    }
  }

  Shape output_shape(std::span<const Shape> inputs) const override {
    if (bags_ != Bags::none) {
      TORCH_CHECK_VALUE(inputs[0].size() == 1 && inputs[1].size() == 1, "qatx program: embedding '",
                        name_, "' takes indices and offsets of one dimension, got ",
                        at::IntArrayRef(inputs[0]), " and ", at::IntArrayRef(inputs[1]));
      return {inputs[1][0], width_};
    }
    Shape out = inputs[0];
    out.push_back(width_);
    TORCH_CHECK_VALUE(!is_image(out.size()), "qatx program: embedding '", name_,
                      "' takes indices of any number of dimensions but 3 and 4, got ",
                      at::IntArrayRef(inputs[0]));
    return out;
  }

  std::unique_ptr<Step> plan(std::span<const Shape> inputs) const override;

  bool writes_apart() const override { return true; }

  // So that the table lies in large pages: a row is where no other one was.
  std::vector<at::Tensor*> packed_weights() override { return {&table_}; }
  bool holds_weight() const override { return true; }
  at::Tensor weight() const override { return table_.clone().view({table_rows_, width_}); }

 private:
  friend class EmbeddingStep;

  // Those of the output.
  void check_codes(const NodeReader& node) const {
    TORCH_CHECK_VALUE(bags_ == Bags::none && node.output().quantized() && !node.has_floats("clamp"),
                      "qatx program: embedding '", name_,
                      "' without weight_scale must give codes, and have neither bags nor a clamp");
    const kernels::QParams& qparams = *node.output().qparams;
    const auto [least, most] = std::minmax_element(
        table_.const_data_ptr<uint8_t>(), table_.const_data_ptr<uint8_t>() + table_.numel());
    TORCH_CHECK_VALUE(*least >= qparams.quant_min && *most <= qparams.quant_max,
                      "qatx program: embedding '", name_, "': weight must be codes in ",
                      qparams.quant_min, "..", qparams.quant_max, ", has ", int{*least}, "..",
                      int{*most});
  }

  std::string name_;
  Output output_;
  int64_t table_rows_;
  int64_t width_;
  at::Tensor table_;  // all rows, one after the other
  at::Tensor scale_;  // undefined: none
  Bags bags_;
};

class EmbeddingStep final : public Step {
 public:
  EmbeddingStep(const Embedding& op, std::span<const Shape> inputs)
      : op_(op),
        count_(c10::multiply_integers(inputs[0])),
        rows_(op.bags_ == Bags::none ? count_ : inputs[1][0]),
        width_(op.width_) {}

  void run(std::span<const Buffer> inputs, Buffer output) const override {
    const int64_t* indices = inputs[0].indices();
    check(indices, count_, op_.table_rows_ - 1, "index");
    const int64_t* offsets = nullptr;
    if (op_.bags_ != Bags::none) {
      offsets = inputs[1].indices();
      check(offsets, rows_, count_, "offset");
      for (int64_t bag = 1; bag < rows_; ++bag) {
        TORCH_CHECK_VALUE(offsets[bag - 1] <= offsets[bag], "qatx program: embedding '", op_.name_,
                          "': offsets must not fall, got ", offsets[bag - 1], " before ",
                          offsets[bag]);
      }
    }
    const int64_t pitch = output.pitch == 0 ? width_ : output.pitch;
    if (!op_.scale_.defined()) {
      auto* out = static_cast<uint8_t*>(output.data);
      parallel_rows(rows_, width_, [&](int64_t begin, int64_t end) {
        for (int64_t r = begin; r < end; ++r) {
          std::memcpy(out + r * pitch, codes(indices[r]), static_cast<size_t>(width_));
        }
      });
      return;
    }
    parallel_rows(rows_, 8 * width_, [&](int64_t begin, int64_t end) {
      std::vector<float> row(offsets == nullptr ? 0 : static_cast<size_t>(2 * width_));
      for (int64_t r = begin; r < end; ++r) {
        const kernels::Epilogue epilogue = op_.output_.to(inputs, output, pitch, r * pitch);
        if (offsets == nullptr) {
          // Between rows that lie apart may be another value's.
          write(indices[r], output.pitch == 0 ? (end - r) * width_ : width_, epilogue);
          continue;
        }
        fill_bag(indices, offsets[r], r + 1 < rows_ ? offsets[r + 1] : count_, row.data());
        kernels::active().rows.affine({row.data(), 1, width_, 1.0f, false, nullptr, 0}, epilogue);
      }
    });
  }

 private:
  void check(const int64_t* numbers, int64_t count, int64_t most, const char* what) const {
    for (int64_t i = 0; i < count; ++i) {
      TORCH_CHECK_INDEX(numbers[i] >= 0 && numbers[i] <= most, "qatx program: embedding '",
                        op_.name_, "': ", what, " ", numbers[i], " is not in 0..", most);
    }
  }

  const uint8_t* codes(int64_t index) const {
    return op_.table_.const_data_ptr<uint8_t>() + index * width_;
  }
  kernels::QParams qparams(int64_t index) const {
    const float scale = op_.scale_.const_data_ptr<float>()[index];
    return {scale, 1.0f / scale, 128, 0, 255};
  }

  // Times one, which changes nothing: the kernel does the rest in one pass. It takes whole vectors
  // where there is room for them in the table and in the output, of which `room` elements are left:
  // what they write too much is written again, with the next row.
  void write(int64_t index, int64_t room, const kernels::Epilogue& epilogue) const {
    static constexpr uint8_t kOne = 1;
    constexpr int64_t kVector = 64;
    const int64_t whole = (width_ + kVector - 1) / kVector * kVector;
    const int64_t left = std::min(room, op_.table_.numel() - index * width_);
    kernels::active().elementwise.mul({codes(index), qparams(index), 0, false},
                                      {&kOne, {1.0f, 1.0f, 0, 0, 255}, 0, true}, 1,
                                      whole <= left ? whole : width_, epilogue);
  }

  void look_up(int64_t index, float* row) const {
    kernels::active().elementwise.dequantize(codes(index), row, width_, qparams(index));
  }

  // `row` has room for two.
  void fill_bag(const int64_t* indices, int64_t begin, int64_t end, float* row) const {
    std::fill(row, row + width_, 0.0f);
    float* next = row + width_;
    for (int64_t i = begin; i < end; ++i) {
      look_up(indices[i], next);
      for (int64_t d = 0; d < width_; ++d) row[d] += next[d];
    }
    if (op_.bags_ == Bags::mean && end > begin) {
      const auto count = static_cast<float>(end - begin);
      for (int64_t d = 0; d < width_; ++d) row[d] /= count;
    }
  }

  const Embedding& op_;
  int64_t count_;
  int64_t rows_;
  int64_t width_;
};

std::unique_ptr<Step> Embedding::plan(std::span<const Shape> inputs) const {
  return std::make_unique<EmbeddingStep>(*this, inputs);
}

}  // namespace

std::unique_ptr<Operator> make_embedding(const NodeReader& node) {
  return std::make_unique<Embedding>(node);
}

}  // namespace qatx::engine
