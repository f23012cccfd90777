#include <c10/util/Exception.h>
#include <c10/util/accumulate.h>

#include <cstring>

#include "qatx/engine/operators/operators.h"
#include "qatx/engine/operators/parallel.h"

namespace qatx::engine {
namespace {

// Codes of any shape, seen in the order of their names (N, C, H, W), get new sizes. Attribute "sizes": 0 keeps the input's size
// at that place, -1 (at most once) takes the rest. Results of four dimensions are not made.
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
                      sizes_);
  }

  Shape output_shape(std::span<const Shape> inputs) const override {
    const Shape& in = inputs[0];
    Shape out = sizes_;
    for (size_t d = 0; d < out.size(); ++d) {
      if (out[d] != 0) continue;
      TORCH_CHECK_VALUE(d < in.size(), "qatx program: reshape '", name_, "' keeps dimension ", d,
                        ", which an input of shape ", in, " lacks");
      out[d] = in[d];
    }
    const int64_t numel = c10::multiply_integers(in);
    const auto open = std::find(out.begin(), out.end(), -1);
    if (open != out.end()) {
      *open = 1;
      const int64_t rest = c10::multiply_integers(out);
      *open = rest == 0 ? 0 : numel / rest;
    }
    TORCH_CHECK_VALUE(c10::multiply_integers(out) == numel, "qatx program: reshape '", name_,
                      "' cannot give shape ", in, " the sizes ", sizes_);
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
