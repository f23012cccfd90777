#include <c10/util/Exception.h>

#include "qatx/engine/operators/gemm.h"
#include "qatx/engine/operators/layout.h"
#include "qatx/engine/operators/operators.h"
#include "qatx/engine/operators/output.h"

namespace qatx::engine {
namespace {

// Inputs: codes [..., K] and, when fused, a residual [..., N]. Attribute clamp; tensors weight int8
// [N, K], weight_scale [N], bias [N].
class Linear final : public Operator {
 public:
  explicit Linear(const NodeReader& node)
      : name_(node.name()),
        output_(node),
        n_(node.tensor("weight", at::kChar, 2).size(0)),
        k_(node.tensor("weight", at::kChar, 2).size(1)),
        gemm_(read_layer_weights(node, 2), node.input(0)) {
    node.check_input_count(1, 2);
    if (node.input_count() == 2) output_.add_residual(node.input(1));
  }

  Shape output_shape(std::span<const Shape> inputs) const override {
    Shape shape = inputs[0];
    // In images the last one would not be the fastest in memory.
    TORCH_CHECK_VALUE(!shape.empty() && !is_image(shape.size()) && shape.back() == k_,
                      "qatx program: linear '", name_, "' takes inputs [..., ", k_,
                      "] of any number of dimensions but 4 and 5, got ", at::IntArrayRef(shape));
    shape.back() = n_;
    TORCH_CHECK_VALUE(!output_.has_residual() || inputs[1] == shape, "qatx program: linear '",
                      name_, "': what is added must have the shape of the output, ",
                      at::IntArrayRef(shape), ", got ", at::IntArrayRef(inputs.back()));
    return shape;
  }

  std::unique_ptr<Step> plan(std::span<const Shape> inputs) const override;

  std::optional<size_t> in_place(std::span<const Shape> /*inputs*/) const override {
    return output_.in_place();
  }

  bool writes_apart() const override { return true; }

  int64_t weight_bytes() const override { return gemm_.bytes(); }
  std::vector<at::Tensor*> packed_weights() override { return gemm_.packed(); }
  bool holds_weight() const override { return true; }
  at::Tensor weight() const override { return to_node_weight(gemm_.unpack(), {n_, k_}); }

  void run(std::span<const Buffer> inputs, Buffer output, const GemmInput& rows) const {
    run_product(rows, inputs[0].codes(), gemm_,
                [&](int64_t first_row) { return output_.to_rows(inputs, output, n_, first_row); });
  }

  int64_t input_features() const { return k_; }

 private:
  std::string name_;
  Output output_;
  int64_t n_;
  int64_t k_;
  PackedGemm gemm_;
};

class LinearStep final : public Step {
 public:
  LinearStep(const Linear& op, int64_t rows) : op_(op), rows_(rows, op.input_features()) {}
  void run(std::span<const Buffer> inputs, Buffer output) const override {
    op_.run(inputs, output, rows_);
  }

 private:
  const Linear& op_;
  GemmInput rows_;
};

std::unique_ptr<Step> Linear::plan(std::span<const Shape> inputs) const {
  int64_t rows = 1;
  for (size_t d = 0; d + 1 < inputs[0].size(); ++d) rows *= inputs[0][d];
  return std::make_unique<LinearStep>(*this, rows);
}

}  // namespace

std::unique_ptr<Operator> make_linear(const NodeReader& node) {
  return std::make_unique<Linear>(node);
}

}  // namespace qatx::engine
