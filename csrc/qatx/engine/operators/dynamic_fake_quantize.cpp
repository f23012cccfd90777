#include <c10/util/Exception.h>
#include <c10/util/accumulate.h>

#include <vector>

#include "qatx/engine/operators/dynamic_rows.h"
#include "qatx/engine/operators/layout.h"
#include "qatx/engine/operators/operators.h"
#include "qatx/engine/operators/parallel.h"

namespace qatx::engine {
namespace {

// float32 of what the codes of each row stand for, for readers other than a dynamic_linear, which
// quantizes its input itself. Input: as DynamicRows.
class DynamicFakeQuantize final : public Operator {
 public:
  explicit DynamicFakeQuantize(const NodeReader& node) : name_(node.name()), rows_(node) {
    node.check_input_count(1, 1);
    TORCH_CHECK_VALUE(!node.output().quantized(), "qatx program: dynamic_fake_quantize '", name_,
                      "': the output must be float32");
  }

  Shape output_shape(std::span<const Shape> inputs) const override {
    TORCH_CHECK_VALUE(!inputs[0].empty(), "qatx program: dynamic_fake_quantize '", name_,
                      "' takes inputs of at least one dimension, got a number");
    return inputs[0];
  }

  std::unique_ptr<Step> plan(std::span<const Shape> inputs) const override;

  void run(std::span<const Buffer> inputs, Buffer output, int64_t rows, int64_t n) const {
    parallel_rows(rows, 8 * n, [&](int64_t begin, int64_t end) {
      std::vector<uint8_t> codes(static_cast<size_t>(n));
      for (int64_t row = begin; row < end; ++row) {
        float scale = 0.0f;
        rows_.quantize(inputs[0], row, row + 1, n, codes.data(), &scale);
        kernels::active().elementwise.dequantize(
            codes.data(), static_cast<float*>(output.data) + row * n, n,
            {scale, 1.0f / scale, kernels::kRowZeroPoint, 0, 255});
      }
    });
  }

 private:
  std::string name_;
  DynamicRows rows_;
};

class DynamicFakeQuantizeStep final : public Step {
 public:
  DynamicFakeQuantizeStep(const DynamicFakeQuantize& op, const Shape& input)
      : op_(op), n_(row_size(input)), rows_(c10::multiply_integers(input) / n_) {}

  void run(std::span<const Buffer> inputs, Buffer output) const override {
    op_.run(inputs, output, rows_, n_);
  }

 private:
  const DynamicFakeQuantize& op_;
  int64_t n_;
  int64_t rows_;
};

std::unique_ptr<Step> DynamicFakeQuantize::plan(std::span<const Shape> inputs) const {
  return std::make_unique<DynamicFakeQuantizeStep>(*this, inputs[0]);
}

}  // namespace

std::unique_ptr<Operator> make_dynamic_fake_quantize(const NodeReader& node) {
  return std::make_unique<DynamicFakeQuantize>(node);
}

}  // namespace qatx::engine
