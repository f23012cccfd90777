#include <c10/util/Exception.h>
#include <c10/util/accumulate.h>

#include <cmath>

#include "qatx/engine/operators/float_rows.h"
#include "qatx/engine/operators/layout.h"
#include "qatx/engine/operators/operators.h"
#include "qatx/engine/operators/output.h"
#include "qatx/engine/operators/parallel.h"

namespace qatx::engine {
namespace {

// Layer normalization over the dimension that lies last in memory (the channels of images,
// otherwise the last one), in float32. Input: float32 or codes. Tensors weight and bias, float32
// [size]; floats eps [1]; attribute clamp.
class LayerNorm final : public Operator {
 public:
  explicit LayerNorm(const NodeReader& node)
      : name_(node.name()),
        rows_(node),
        output_(node),
        weight_(node.tensor("weight", at::kFloat, 1)),
        bias_(node.tensor("bias", at::kFloat, 1)) {
    node.check_input_count(1, 1);
    const std::vector<double> eps = node.float_list("eps");
    TORCH_CHECK_VALUE(eps.size() == 1 && eps[0] >= 0 && std::isfinite(static_cast<float>(eps[0])),
                      "qatx program: layer_norm '", name_,
                      "': eps must be one finite number of at least 0");
    TORCH_CHECK_VALUE(weight_.numel() == bias_.numel(), "qatx program: layer_norm '", name_,
                      "': weight and bias must have the same number of elements, got ",
                      weight_.numel(), " and ", bias_.numel());
    eps_ = static_cast<float>(eps[0]);
  }

  Shape output_shape(std::span<const Shape> inputs) const override {
    const Shape& shape = inputs[0];
    TORCH_CHECK_VALUE(!shape.empty() && row_size(shape) == weight_.numel(),
                      "qatx program: layer_norm '", name_, "' takes inputs [..., ", weight_.numel(),
                      "] or images with so many channels, got ", at::IntArrayRef(shape));
    return shape;
  }

  std::unique_ptr<Step> plan(std::span<const Shape> inputs) const override;

  void run(std::span<const Buffer> inputs, Buffer output, int64_t rows) const {
    const int64_t n = weight_.numel();
    parallel_rows(rows, 4 * n, [&](int64_t begin, int64_t end) {
      rows_.visit(inputs[0], begin, end, n, [&](const float* x, int64_t row, int64_t count) {
        kernels::active().rows.layer_norm(x, count, n, weight_.const_data_ptr<float>(),
                                          bias_.const_data_ptr<float>(), eps_,
                                          output_.to(inputs, output, n, row * n));
      });
    });
  }

 private:
  std::string name_;
  FloatRows rows_;
  Output output_;
  at::Tensor weight_;
  at::Tensor bias_;
  float eps_ = 0;
};

class LayerNormStep final : public Step {
 public:
  LayerNormStep(const LayerNorm& op, int64_t rows) : op_(op), rows_(rows) {}
  void run(std::span<const Buffer> inputs, Buffer output) const override {
    op_.run(inputs, output, rows_);
  }

 private:
  const LayerNorm& op_;
  int64_t rows_;
};

std::unique_ptr<Step> LayerNorm::plan(std::span<const Shape> inputs) const {
  return std::make_unique<LayerNormStep>(*this,
                                         c10::multiply_integers(inputs[0]) / weight_.numel());
}

}  // namespace

std::unique_ptr<Operator> make_layer_norm(const NodeReader& node) {
  return std::make_unique<LayerNorm>(node);
}

}  // namespace qatx::engine
