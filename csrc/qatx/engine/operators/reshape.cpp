#include <c10/util/Exception.h>
#include <c10/util/accumulate.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <numeric>

#include "qatx/engine/operators/operators.h"
#include "qatx/engine/operators/parallel.h"

namespace qatx::engine {
namespace {

// Codes of any shape, seen in the order of their names (N, C, H, W), get new sizes. Attribute
// "sizes": 0 keeps the input's size at that place, -1 (at most once) takes the rest. Results of
// four dimensions are not made.
class Reshape final : public Operator {
 public:
  explicit Reshape(const NodeReader& node) : name_(node.name()), sizes_(node.int_list("sizes")) {
    node.check_input_count(1, 1);
    node.check_same_qparams();
    const auto open = std::count(sizes_.begin(), sizes_.end(), -1);
    TORCH_CHECK_VALUE(!sizes_.empty() && sizes_.size() != 4 && open <= 1 &&
                          *std::min_element(sizes_.begin(), sizes_.end()) >= -1,
                      "qatx program: reshape '", name_,
                      "': sizes must be at least -1, with one -1 at most, and not four, got ",
                      at::IntArrayRef(sizes_));
  }

  Shape output_shape(std::span<const Shape> inputs) const override {
    const Shape& in = inputs[0];
    Shape out = sizes_;
    // What -1 stands for: the sizes that are not kept over those that are given. Kept ones stay out
    // of it, for they may be 0.
    int64_t rest = 1;
    for (size_t d = 0; d < std::max(in.size(), out.size()); ++d) {
      const bool kept = d < out.size() && out[d] == 0;
      TORCH_CHECK_VALUE(!kept || d < in.size(), "qatx program: reshape '", name_,
                        "' keeps dimension ", d, ", which an input of shape ", at::IntArrayRef(in),
                        " lacks");
      if (kept) {
        out[d] = in[d];
      } else if (d < in.size()) {
        rest *= in[d];
      }
    }
    for (const int64_t size : sizes_) rest /= std::max<int64_t>(size, 1);
    std::replace(out.begin(), out.end(), int64_t{-1}, rest);
    // In double: the sizes of a damaged program may have a product that an int64 cannot hold.
    const double numel = std::accumulate(out.begin(), out.end(), 1.0, std::multiplies<>());
    TORCH_CHECK_VALUE(numel == static_cast<double>(c10::multiply_integers(in)),
                      "qatx program: reshape '", name_, "' cannot give shape ", at::IntArrayRef(in),
                      " the sizes ", at::IntArrayRef(sizes_));
    return out;
  }

  std::unique_ptr<Step> plan(std::span<const Shape> inputs) const override;

 private:
  std::string name_;
  std::vector<int64_t> sizes_;
};

class ReshapeStep final : public Step {
 public:
  explicit ReshapeStep(Shape in) : in_(std::move(in)) {}

  void run(std::span<const Buffer> inputs, Buffer output) const override {
    const uint8_t* in = inputs[0].codes();
    auto* out = static_cast<uint8_t*>(output.data);
    const bool image = in_.size() == 4 && in_[1] > 1 && in_[2] * in_[3] > 1;
    if (!image) {
      std::memcpy(out, in, static_cast<size_t>(c10::multiply_integers(in_)));
      return;
    }
    const int64_t channels = in_[1];
    const int64_t pixels = in_[2] * in_[3];
    parallel_rows(in_[0], 4 * channels * pixels, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin * channels * pixels; i < end * channels * pixels;
           i += channels * pixels) {
        for (int64_t c = 0; c < channels; ++c) {
          for (int64_t p = 0; p < pixels; ++p) out[i + c * pixels + p] = in[i + p * channels + c];
        }
      }
    });
  }

 private:
  Shape in_;
};

std::unique_ptr<Step> Reshape::plan(std::span<const Shape> inputs) const {
  return std::make_unique<ReshapeStep>(inputs[0]);
}

}  // namespace

std::unique_ptr<Operator> make_reshape(const NodeReader& node) {
  return std::make_unique<Reshape>(node);
}

}  // namespace qatx::engine
