#include <c10/util/Exception.h>

#include <algorithm>

#include "qatx/engine/operators/layout.h"
#include "qatx/engine/operators/operators.h"
#include "qatx/engine/operators/output.h"
#include "qatx/engine/operators/parallel.h"
#include "qatx/kernels/registry.h"

namespace qatx::engine {
namespace {

// 255 * this fits an int32, and a tap is an offset that does, too.
constexpr int64_t kMostElements = 1 << 23;

// The mean, or the greatest, of codes of any shape over attribute "dims"; these dimensions
// become 1. Attribute clamp, of a mean.
class Reduction final : public Operator {
 public:
  Reduction(const NodeReader& node, bool mean)
      : name_(node.name()),
        kind_(mean ? "mean" : "amax"),
        mean_(mean),
        input_(node.input(0)),
        output_(node),
        dims_(node.int_list("dims")) {
    node.check_input_count(1, 1);
    if (!mean) node.check_same_qparams();
    std::sort(dims_.begin(), dims_.end());
    TORCH_CHECK_VALUE(!dims_.empty() && dims_.front() >= 0 && dims_.back() < 64 &&
                          std::adjacent_find(dims_.begin(), dims_.end()) == dims_.end(),
                      "qatx program: ", kind_, " '", name_,
                      "': dims must differ and be in 0..63, got ", at::IntArrayRef(dims_));
  }

  Shape output_shape(std::span<const Shape> inputs) const override {
    const Shape& in = inputs[0];
    TORCH_CHECK_VALUE(dims_.back() < static_cast<int64_t>(in.size()), "qatx program: ", kind_, " '",
                      name_, "' over dimensions ", at::IntArrayRef(dims_),
                      " got an input of shape ", at::IntArrayRef(in));
    Shape out = in;
    double numel = 1;
    for (size_t d = 0; d < in.size(); ++d) {
      numel *= static_cast<double>(in[d]);
      if (!is_reduced(d)) continue;
      TORCH_CHECK_VALUE(in[d] > 0, "qatx program: ", kind_, " '", name_, "' of no elements");
      out[d] = 1;
    }
    TORCH_CHECK_VALUE(numel < 0x1p31, "qatx program: ", kind_, " '", name_,
                      "' takes tensors of less than 2^31 elements");
    return out;
  }

  bool is_reduced(size_t d) const {
    return std::binary_search(dims_.begin(), dims_.end(), static_cast<int64_t>(d));
  }

  std::unique_ptr<Step> plan(std::span<const Shape> inputs) const override;

 private:
  friend class ReductionStep;

  std::string name_;
  const char* kind_;
  bool mean_;
  kernels::QParams input_;
  Output output_;
  std::vector<int64_t> dims_;
};

// As a pooling: what lies side by side and is kept are channels, what else is kept are
// pixels, and what is reduced are taps.
class ReductionStep final : public Step {
 public:
  ReductionStep(const Reduction& op, const Shape& in) : op_(op) {
    const Shape strides = strides_of(in);
    const auto order = memory_order(in.size());
    size_t last = order.size();
    while (last > 0 && (!op.is_reduced(order[last - 1]) || in[order[last - 1]] == 1)) {
      channels_ *= in[order[--last]];
    }
    std::vector<int32_t> pixels{0};
    std::vector<int32_t> taps{0};
    for (size_t i = 0; i < last; ++i) {
      auto& list = op.is_reduced(order[i]) ? taps : pixels;
      std::vector<int32_t> longer;
      for (const int32_t offset : list) {
        for (int64_t k = 0; k < in[order[i]]; ++k) {
          longer.push_back(offset + static_cast<int32_t>(k * strides[order[i]]));
        }
      }
      list = std::move(longer);
    }
    taps_ = static_cast<int64_t>(taps.size());
    pixels_ = static_cast<int64_t>(pixels.size());
    TORCH_CHECK_VALUE(taps_ <= kMostElements, "qatx program: ", op.kind_, " '", op.name_, "' over ",
                      taps_, " elements; it takes at most ", kMostElements);
    for (const int32_t pixel : pixels) {
      for (const int32_t tap : taps) offsets_.push_back(pixel + tap);
    }
    multipliers_.assign(pixels.size(), op.input_.scale / static_cast<float>(taps_));
  }

  void run(std::span<const Buffer> inputs, Buffer output) const override {
    const kernels::Window window{inputs[0].codes(), 0, pixels_, taps_, offsets_.data(), nullptr};
    if (!op_.mean_) {
      parallel_rows(pixels_, taps_ * channels_, [&](int64_t begin, int64_t end) {
        kernels::active().pool.max(window, channels_, static_cast<uint8_t*>(output.data), begin,
                                   end);
      });
      return;
    }
    const kernels::Epilogue epilogue = op_.output_.to(inputs, output, channels_);
    parallel_rows(pixels_, taps_ * channels_, [&](int64_t begin, int64_t end) {
      kernels::active().pool.average(window, channels_, op_.input_.zero_point, multipliers_.data(),
                                     epilogue, begin, end);
    });
  }

 private:
  const Reduction& op_;
  int64_t channels_ = 1;
  int64_t pixels_ = 1;
  int64_t taps_ = 1;
  std::vector<int32_t> offsets_;
  std::vector<float> multipliers_;
};

std::unique_ptr<Step> Reduction::plan(std::span<const Shape> inputs) const {
  return std::make_unique<ReductionStep>(*this, inputs[0]);
}

}  // namespace

std::unique_ptr<Operator> make_mean(const NodeReader& node) {
  return std::make_unique<Reduction>(node, /*mean=*/true);
}

std::unique_ptr<Operator> make_amax(const NodeReader& node) {
  return std::make_unique<Reduction>(node, /*mean=*/false);
}

}  // namespace qatx::engine
