#include <c10/util/Exception.h>
#include <c10/util/accumulate.h>

#include "qatx/engine/operators/operators.h"
#include "qatx/engine/operators/parallel.h"
#include "qatx/kernels/registry.h"

namespace qatx::engine {
namespace {

// float32 -> codes (Quantize) and back: element by element, but for an NCHW input that becomes NHWC
// on the way.
class Conversion final : public Operator {
 public:
  Conversion(const kernels::QParams& qparams, bool to_codes)
      : qparams_(qparams), to_codes_(to_codes) {}

  Shape output_shape(std::span<const Shape> inputs) const override { return inputs[0]; }
  std::unique_ptr<Step> plan(std::span<const Shape> inputs) const override;

  void run(Buffer input, Buffer output, const Shape& shape) const {
    const auto& kernel = kernels::active().elementwise;
    if (!to_codes_) {
      parallel_rows(c10::multiply_integers(shape), 4, [&](int64_t begin, int64_t end) {
        kernel.dequantize(input.codes() + begin, static_cast<float*>(output.data) + begin,
                          end - begin, qparams_);
      });
      return;
    }
    auto* codes = static_cast<uint8_t*>(output.data);
    if (input.channels_last) {
      parallel_rows(c10::multiply_integers(shape), 4, [&](int64_t begin, int64_t end) {
        kernel.quantize(input.floats() + begin, codes + begin, end - begin, qparams_);
      });
      return;
    }
    const int64_t image = c10::multiply_integers(shape.begin() + 1, shape.end());
    parallel_rows(shape[0], 4 * image, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        kernel.quantize_to_nhwc(input.floats() + i * image, codes + i * image, shape[1],
                                image / shape[1], qparams_);
      }
    });
  }

 private:
  kernels::QParams qparams_;
  bool to_codes_;
};

class ConversionStep final : public Step {
 public:
  ConversionStep(const Conversion& op, Shape shape) : op_(op), shape_(std::move(shape)) {}
  void run(std::span<const Buffer> inputs, Buffer output) const override {
    op_.run(inputs[0], output, shape_);
  }

 private:
  const Conversion& op_;
  Shape shape_;
};

std::unique_ptr<Step> Conversion::plan(std::span<const Shape> inputs) const {
  return std::make_unique<ConversionStep>(*this, inputs[0]);
}

}  // namespace

std::unique_ptr<Operator> make_quantize(const NodeReader& node) {
  node.check_input_count(1, 1);
  TORCH_CHECK_VALUE(!node.input_value(0).quantized() && node.output().quantized(),
                    "qatx program: quantize '", node.name(), "' takes float32 and gives codes");
  return std::make_unique<Conversion>(*node.output().qparams, /*to_codes=*/true);
}

std::unique_ptr<Operator> make_dequantize(const NodeReader& node) {
  node.check_input_count(1, 1);
  TORCH_CHECK_VALUE(!node.output().quantized(), "qatx program: dequantize '", node.name(),
                    "' gives float32");
  return std::make_unique<Conversion>(node.input(0), /*to_codes=*/false);
}

}  // namespace qatx::engine
