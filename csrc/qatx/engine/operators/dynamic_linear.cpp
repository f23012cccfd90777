#include <ATen/ops/zeros_like.h>
#include <c10/util/Exception.h>
#include <c10/util/accumulate.h>

#include <cstring>
#include <limits>
#include <memory>

#include "qatx/engine/operators/dynamic_rows.h"
#include "qatx/engine/operators/gemm.h"
#include "qatx/engine/operators/layout.h"
#include "qatx/engine/operators/operators.h"
#include "qatx/engine/operators/output.h"
#include "qatx/engine/operators/parallel.h"

namespace qatx::engine {
namespace {

// What a row's scale is multiplied with comes from a product whose input has the scale 1.
constexpr kernels::QParams kUnscaled{1.0f, 1.0f, kernels::kRowZeroPoint, 0, 255};

// A linear layer that quantizes each row of its input by the row's own range:
//   y = (float(acc) * weight_scale[c]) * scale[row] + bias[c]
// Input: as DynamicRows. Attributes quant_max, clamp; tensors weight int8 [N, K], weight_scale [N],
// bias [N].
class DynamicLinear final : public Operator {
 public:
  explicit DynamicLinear(const NodeReader& node)
      : DynamicLinear(node, read_layer_weights(node, 2, kUnscaled.scale)) {}

  Shape output_shape(std::span<const Shape> inputs) const override {
    Shape shape = inputs[0];
    TORCH_CHECK_VALUE(!shape.empty() && row_size(shape) == k_, "qatx program: dynamic_linear '",
                      name_, "' takes inputs [..., ", k_, "] or images with so many channels, got ",
                      at::IntArrayRef(shape));
    shape[innermost(shape.size())] = gemm_.columns();
    return shape;
  }

  std::unique_ptr<Step> plan(std::span<const Shape> inputs) const override;

  int64_t weight_bytes() const override { return gemm_.bytes(); }
  std::vector<at::Tensor*> packed_weights() override { return gemm_.packed(); }
  bool holds_weight() const override { return true; }
  at::Tensor weight() const override {
    return to_node_weight(gemm_.unpack(), {gemm_.columns(), k_});
  }

 private:
  friend class DynamicLinearStep;

  DynamicLinear(const NodeReader& node, const LayerWeights& weights)
      : name_(node.name()),
        rows_(node),
        output_(node),
        quantizes_(node.output().quantized()),
        k_(weights.weight.size(2)),
        bias_(weights.bias),
        gemm_({weights.weight, weights.weight_scale, at::zeros_like(weights.bias)}, kUnscaled) {
    node.check_input_count(1, 1);
  }

  std::string name_;
  DynamicRows rows_;
  Output output_;
  bool quantizes_;
  int64_t k_;
  at::Tensor bias_;
  PackedGemm gemm_;
};

class DynamicLinearStep final : public Step {
 public:
  DynamicLinearStep(const DynamicLinear& op, int64_t rows)
      : op_(op), rows_(rows), input_(rows, op.k_) {}

  void run(std::span<const Buffer> inputs, Buffer output) const override {
    const int64_t k = op_.k_;
    const int64_t n = op_.gemm_.columns();
    const auto codes = std::make_unique_for_overwrite<uint8_t[]>(
        static_cast<size_t>(rows_ * k + kernels::kOverRead));
    std::memset(codes.get() + rows_ * k, 0, kernels::kOverRead);
    const auto scales = std::make_unique_for_overwrite<float[]>(static_cast<size_t>(rows_));
    parallel_rows(rows_, 8 * k, [&](int64_t begin, int64_t end) {
      op_.rows_.quantize(inputs[0], begin, end, k, codes.get() + begin * k, scales.get() + begin);
    });
    // Products that are not rounded to codes are finished where they lie.
    std::unique_ptr<float[]> own;
    if (op_.quantizes_)
      own = std::make_unique_for_overwrite<float[]>(static_cast<size_t>(rows_ * n));
    float* products = own ? own.get() : static_cast<float*>(output.data);
    run_product(input_, codes.get(), op_.gemm_, [&](int64_t first_row) {
      constexpr float kInf = std::numeric_limits<float>::infinity();
      kernels::Epilogue epilogue{};
      epilogue.clamp_min = -kInf;
      epilogue.clamp_max = kInf;
      epilogue.out_f32 = products + first_row * n;
      epilogue.out_stride = n;
      return epilogue;
    });
    parallel_rows(rows_, 8 * n, [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        kernels::active().rows.affine(
            {products + row * n, 1, n, scales[static_cast<size_t>(row)], /*divide=*/false,
             op_.bias_.const_data_ptr<float>(), /*mask_stride=*/0},
            op_.output_.to(inputs, output, n, row * n));
      }
    });
  }

 private:
  const DynamicLinear& op_;
  int64_t rows_;
  GemmInput input_;
};

std::unique_ptr<Step> DynamicLinear::plan(std::span<const Shape> inputs) const {
  return std::make_unique<DynamicLinearStep>(*this, c10::multiply_integers(inputs[0]) / k_);
}

}  // namespace

std::unique_ptr<Operator> make_dynamic_linear(const NodeReader& node) {
  return std::make_unique<DynamicLinear>(node);
}

}  // namespace qatx::engine
