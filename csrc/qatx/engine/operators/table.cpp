#include <c10/util/Exception.h>
#include <c10/util/accumulate.h>

#include <array>

#include "qatx/engine/operators/operators.h"
#include "qatx/engine/operators/output.h"
#include "qatx/engine/operators/parallel.h"
#include "qatx/kernels/registry.h"

namespace qatx::engine {
namespace {

constexpr int64_t kCodes = 256;

// Any function of one value: tensor "values", float32 [256], holds its result for each code of the
// input. Attribute clamp.
class Table final : public Operator {
 public:
  explicit Table(const NodeReader& node) : quantized_(node.output().quantized()) {
    node.check_input_count(1, 1);
    node.input(0);
    const at::Tensor values = node.tensor("values", at::kFloat, 1);
    TORCH_CHECK_VALUE(values.numel() == kCodes, "qatx program: table '", node.name(),
                      "': values must have 256 elements, got ", values.numel());
    // The codes of all results, by the kernel that quantizes tensors.
    const Output output(node);
    const kernels::Epilogue epilogue = output.to({}, {floats_.data()}, kCodes);
    for (size_t q = 0; q < kCodes; ++q) {
      const float y = values.const_data_ptr<float>()[q];
      const float low = y < epilogue.clamp_min ? epilogue.clamp_min : y;
      floats_[q] = low > epilogue.clamp_max ? epilogue.clamp_max : low;
    }
    if (quantized_) {
      kernels::active().elementwise.quantize(floats_.data(), codes_.data(), kCodes, epilogue.out);
    }
  }

  Shape output_shape(std::span<const Shape> inputs) const override { return inputs[0]; }
  std::unique_ptr<Step> plan(std::span<const Shape> inputs) const override;

  std::optional<size_t> in_place() const override {
    return quantized_ ? std::optional<size_t>(0) : std::nullopt;
  }

  void run(Buffer input, Buffer output, int64_t n) const {
    const auto& kernel = kernels::active().elementwise;
    parallel_rows(n, quantized_ ? 1 : 4, [&](int64_t begin, int64_t end) {
      const uint8_t* codes = input.codes() + begin;
      if (quantized_) {
        kernel.lookup(codes, static_cast<uint8_t*>(output.data) + begin, end - begin,
                      codes_.data());
      } else {
        kernel.lookup_f32(codes, static_cast<float*>(output.data) + begin, end - begin,
                          floats_.data());
      }
    });
  }

 private:
  bool quantized_;
  std::array<float, kCodes> floats_{};
  std::array<uint8_t, kCodes> codes_{};
};

class TableStep final : public Step {
 public:
  TableStep(const Table& op, int64_t n) : op_(op), n_(n) {}
  void run(std::span<const Buffer> inputs, Buffer output) const override {
    op_.run(inputs[0], output, n_);
  }

 private:
  const Table& op_;
  int64_t n_;
};

std::unique_ptr<Step> Table::plan(std::span<const Shape> inputs) const {
  return std::make_unique<TableStep>(*this, c10::multiply_integers(inputs[0]));
}

}  // namespace

std::unique_ptr<Operator> make_table(const NodeReader& node) {
  return std::make_unique<Table>(node);
}

}  // namespace qatx::engine
