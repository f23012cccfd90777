#include <c10/util/Exception.h>
#include <c10/util/accumulate.h>

#include <algorithm>
#include <vector>

#include "qatx/engine/operators/layout.h"
#include "qatx/engine/operators/operators.h"
#include "qatx/engine/operators/output.h"
#include "qatx/engine/operators/parallel.h"
#include "qatx/kernels/registry.h"

namespace qatx::engine {
namespace {

constexpr int64_t kCodes = 256;

// Any function of one value: tensor "values", float32 [256], holds its result for each code of the
// input; where ints "axis" is [d], [C, 256], for each index of dimension d. Attribute clamp.
class Table final : public Operator {
 public:
  explicit Table(const NodeReader& node)
      : name_(node.name()), quantized_(node.output().quantized()) {
    node.check_input_count(1, 1);
    node.input(0);
    if (node.has_ints("axis")) {
      axis_ = static_cast<size_t>(node.ints("axis", 1, 0, kMostDimensions)[0]);
    }
    const at::Tensor values = node.tensor("values", at::kFloat, axis_ ? 2 : 1);
    TORCH_CHECK_VALUE(values.size(-1) == kCodes, "qatx program: table '", name_,
                      "': values must have 256 elements", axis_ ? " in the last dimension" : "",
                      ", got ", values.size(-1));
    tables_ = values.numel() / kCodes;
    floats_.resize(static_cast<size_t>(values.numel()));
    // The codes of all results, by the kernel that quantizes tensors.
    const Output output(node);
    const kernels::Epilogue epilogue = output.to({}, {floats_.data()}, kCodes);
    for (size_t q = 0; q < floats_.size(); ++q) {
      const float y = values.const_data_ptr<float>()[q];
      const float low = y < epilogue.clamp_min ? epilogue.clamp_min : y;
      floats_[q] = low > epilogue.clamp_max ? epilogue.clamp_max : low;
    }
    if (quantized_) {
      codes_.resize(floats_.size());
      kernels::active().elementwise.quantize(floats_.data(), codes_.data(), values.numel(),
                                             epilogue.out);
    }
  }

  Shape output_shape(std::span<const Shape> inputs) const override {
    const Shape& shape = inputs[0];
    TORCH_CHECK_VALUE(!axis_ || (*axis_ < shape.size() && shape[*axis_] == tables_),
                      "qatx program: table '", name_, "' takes inputs with ", tables_,
                      " indices along dimension ", axis_.value_or(0), ", got ",
                      at::IntArrayRef(shape));
    return shape;
  }

  std::unique_ptr<Step> plan(std::span<const Shape> inputs) const override;

  std::optional<size_t> in_place(std::span<const Shape> /*inputs*/) const override {
    return quantized_ ? std::optional<size_t>(0) : std::nullopt;
  }

 private:
  friend class TableStep;

  static constexpr int64_t kMostDimensions = 63;

  // Of `n` elements that share a table.
  void look_up(const uint8_t* from, Buffer output, int64_t offset, int64_t n, int64_t table) const {
    const auto& kernel = kernels::active().elementwise;
    if (quantized_) {
      kernel.lookup(from, static_cast<uint8_t*>(output.data) + offset, n,
                    codes_.data() + table * kCodes);
    } else {
      kernel.lookup_f32(from, static_cast<float*>(output.data) + offset, n,
                        floats_.data() + table * kCodes);
    }
  }

  // Of rows with an element for each table.
  template <class T>
  void look_up_rows(const uint8_t* from, T* to, int64_t rows, const std::vector<T>& results) const {
    for (int64_t r = 0; r < rows; ++r, from += tables_, to += tables_) {
      const T* table = results.data();
      for (int64_t c = 0; c < tables_; ++c, table += kCodes) to[c] = table[from[c]];
    }
  }

  std::string name_;
  bool quantized_;
  std::optional<size_t> axis_;
  int64_t tables_ = 1;
  std::vector<float> floats_;
  std::vector<uint8_t> codes_;
};

class TableStep final : public Step {
 public:
  TableStep(const Table& op, const Shape& input) : op_(op), n_(c10::multiply_integers(input)) {
    run_ = n_;
    if (!op.axis_) return;
    const std::vector<size_t> order = memory_order(input.size());
    run_ = 1;
    for (auto d = order.rbegin(); *d != *op.axis_; ++d) run_ *= input[*d];
  }

  void run(std::span<const Buffer> inputs, Buffer output) const override {
    const uint8_t* codes = inputs[0].codes();
    const int64_t bytes = op_.quantized_ ? 1 : 4;
    if (op_.tables_ > 1 && run_ == 1) {
      parallel_rows(n_ / op_.tables_, bytes * op_.tables_, [&](int64_t begin, int64_t end) {
        const int64_t offset = begin * op_.tables_;
        if (op_.quantized_) {
          op_.look_up_rows(codes + offset, static_cast<uint8_t*>(output.data) + offset, end - begin,
                           op_.codes_);
        } else {
          op_.look_up_rows(codes + offset, static_cast<float*>(output.data) + offset, end - begin,
                           op_.floats_);
        }
      });
      return;
    }
    // Parts of runs, so that a single one is shared by threads.
    const int64_t runs = n_ / run_;
    parallel_rows(n_, bytes, [&](int64_t begin, int64_t end) {
      for (int64_t run = begin / run_; run < runs && run * run_ < end; ++run) {
        const int64_t first = std::max(begin, run * run_);
        const int64_t last = std::min(end, (run + 1) * run_);
        op_.look_up(codes + first, output, first, last - first, run % op_.tables_);
      }
    });
  }

 private:
  const Table& op_;
  int64_t n_;
  int64_t run_ = 1;  // elements that lie behind each other and share a table
};

std::unique_ptr<Step> Table::plan(std::span<const Shape> inputs) const {
  return std::make_unique<TableStep>(*this, inputs[0]);
}

}  // namespace

std::unique_ptr<Operator> make_table(const NodeReader& node) {
  return std::make_unique<Table>(node);
}

}  // namespace qatx::engine
