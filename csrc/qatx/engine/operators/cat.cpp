#include <c10/util/Exception.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <numeric>

#include "qatx/engine/operators/layout.h"
#include "qatx/engine/operators/operators.h"
#include "qatx/engine/operators/output.h"
#include "qatx/engine/operators/parallel.h"
#include "qatx/kernels/registry.h"

namespace qatx::engine {
namespace {

constexpr size_t kMostInputs = 4096;

// Inputs: codes that differ in size along attribute "dim" only, each with its own parameters.
// Attribute clamp.
class Cat final : public Operator {
 public:
  explicit Cat(const NodeReader& node)
      : name_(node.name()),
        dim_(static_cast<size_t>(node.ints("dim", 1, 0, 64)[0])),
        quantized_(node.output().quantized()) {
    node.check_input_count(1, kMostInputs);
    std::array<uint8_t, 256> codes{};
    std::iota(codes.begin(), codes.end(), uint8_t{0});
    const auto& kernel = kernels::active().elementwise;
    kernels::Epilogue epilogue = Output(node).to({}, {codes.data()}, 256);
    for (size_t i = 0; i < node.input_count(); ++i) {
      Part part{.same = quantized_ && !node.clamp() && node.input(i) == epilogue.out};
      kernel.dequantize(codes.data(), part.floats.data(), 256, node.input(i));
      for (float& y : part.floats) {
        y = y < epilogue.clamp_min ? epilogue.clamp_min : y;
        y = y > epilogue.clamp_max ? epilogue.clamp_max : y;
      }
      if (quantized_) {
        kernel.quantize(part.floats.data(), part.codes.data(), 256, epilogue.out);
      }
      parts_.push_back(part);
    }
  }

  Shape output_shape(std::span<const Shape> inputs) const override {
    Shape out = inputs[0];
    TORCH_CHECK_VALUE(dim_ < out.size(), "qatx program: cat '", name_, "' along dimension ", dim_,
                      " got an input of shape ", at::IntArrayRef(out));
    out[dim_] = 0;
    for (const Shape& in : inputs) {
      Shape rest = in;
      if (dim_ < rest.size()) rest[dim_] = out[dim_];
      TORCH_CHECK_VALUE(rest == out, "qatx program: cat '", name_,
                        "' takes inputs that differ in dimension ", dim_, " only, got ",
                        at::IntArrayRef(inputs[0]), " and ", at::IntArrayRef(in));
      out[dim_] += in[dim_];
    }
    return out;
  }

  std::unique_ptr<Step> plan(std::span<const Shape> inputs) const override;

  bool keeps_samples(std::span<const Shape> /*inputs*/, const std::vector<bool>& /*by_sample*/,
                     int64_t /*samples*/) const override {
    return dim_ != 0;
  }

  bool joins(size_t input, size_t dimensions) const override {
    return parts_[input].same && innermost(dimensions) == dim_;
  }

 private:
  friend class CatStep;

  struct Part {
    bool same;  // its codes are the output's
    std::array<float, 256> floats{};
    std::array<uint8_t, 256> codes{};
  };

  std::string name_;
  size_t dim_;
  bool quantized_;
  std::vector<Part> parts_;
};

class CatStep final : public Step {
 public:
  CatStep(const Cat& op, std::span<const Shape> inputs) : op_(op) {
    const auto order = memory_order(inputs[0].size());
    const auto place = std::find(order.begin(), order.end(), op.dim_);
    for (auto d = order.begin(); d != place; ++d) rows_ *= inputs[0][*d];
    for (const Shape& in : inputs) {
      int64_t elements = 1;
      for (auto d = place; d != order.end(); ++d) elements *= in[*d];
      widths_.push_back(elements);
      width_ += elements;
    }
  }

  void run(std::span<const Buffer> inputs, Buffer output) const override {
    const auto& kernel = kernels::active().elementwise;
    parallel_rows(rows_, width_, [&](int64_t begin, int64_t end) {
      int64_t offset = 0;
      for (size_t i = 0; i < inputs.size(); ++i) {
        const int64_t n = widths_[i];
        if (inputs[i].pitch != 0) {  // it was made there
          offset += n;
          continue;
        }
        const Cat::Part& part = op_.parts_[i];
        for (int64_t row = begin; row < end; ++row) {
          const uint8_t* in = inputs[i].codes() + row * n;
          const int64_t to = row * width_ + offset;
          if (part.same) {
            std::memcpy(static_cast<uint8_t*>(output.data) + to, in, static_cast<size_t>(n));
          } else if (op_.quantized_) {
            kernel.lookup(in, static_cast<uint8_t*>(output.data) + to, n, part.codes.data());
          } else {
            kernel.lookup_f32(in, static_cast<float*>(output.data) + to, n, part.floats.data());
          }
        }
        offset += n;
      }
    });
  }

 private:
  const Cat& op_;
  int64_t rows_ = 1;  // of the dimensions around the one along which inputs are put together
  std::vector<int64_t> widths_;
  int64_t width_ = 0;
};

std::unique_ptr<Step> Cat::plan(std::span<const Shape> inputs) const {
  return std::make_unique<CatStep>(*this, inputs);
}

}  // namespace

std::unique_ptr<Operator> make_cat(const NodeReader& node) { return std::make_unique<Cat>(node); }

}  // namespace qatx::engine
