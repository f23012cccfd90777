#include <c10/util/Exception.h>

#include <algorithm>

#include "qatx/engine/operators/operators.h"
#include "qatx/engine/operators/output.h"
#include "qatx/engine/operators/parallel.h"
#include "qatx/engine/operators/resize.h"
#include "qatx/engine/operators/spatial.h"
#include "qatx/kernels/registry.h"

namespace qatx::engine {
namespace {

// Codes [N, C, H, W]. Attributes of Resize, align_corners, clamp.
class UpsampleBilinear final : public Operator {
 public:
  explicit UpsampleBilinear(const NodeReader& node)
      : name_(node.name()),
        input_(node.input(0)),
        resize_(node),
        align_corners_(node.ints("align_corners", 1, 0, 1)[0] != 0),
        output_(node) {
    node.check_input_count(1, 1);
  }

  Shape output_shape(std::span<const Shape> inputs) const override {
    const Shape& in = inputs[0];
    check_image_shape(name_, in, 2);
    return {in[0], in[1], resize_.dimension(in, 2).size, resize_.dimension(in, 3).size};
  }

  std::unique_ptr<Step> plan(std::span<const Shape> inputs) const override;

  // The two elements of the input that each element of the output lies between, and how far from
  // the first.
  std::vector<kernels::Interpolation> taps(const Shape& in, size_t d, int64_t stride) const {
    const auto [size, step] = resize_.dimension(in, d);
    const float aligned = Resize::aligned_step(in[d], size);
    std::vector<kernels::Interpolation> taps;
    for (int64_t i = 0; i < size; ++i) {
      const auto place = static_cast<float>(i);
      const float at =
          align_corners_ ? aligned * place : std::max(step * (place + 0.5f) - 0.5f, 0.0f);
      const int64_t first = std::min(static_cast<int64_t>(at), in[d] - 1);
      const int64_t second = std::min(first + 1, in[d] - 1);
      const float weight = std::min(std::max(at - static_cast<float>(first), 0.0f), 1.0f);
      taps.push_back({first * stride, second * stride, 1.0f - weight, weight});
    }
    return taps;
  }

 private:
  friend class UpsampleBilinearStep;

  std::string name_;
  kernels::QParams input_;
  Resize resize_;
  bool align_corners_;
  Output output_;
};

class UpsampleBilinearStep final : public Step {
 public:
  UpsampleBilinearStep(const UpsampleBilinear& op, const Shape& in)
      : op_(op),
        images_(in[0]),
        channels_(in[1]),
        image_stride_(in[1] * in[2] * in[3]),
        vertical_(op.taps(in, 2, in[3] * in[1])),
        horizontal_(op.taps(in, 3, in[1])) {}

  void run(std::span<const Buffer> inputs, Buffer output) const override {
    const auto height = static_cast<int64_t>(vertical_.size());
    const auto width = static_cast<int64_t>(horizontal_.size());
    parallel_rows(images_ * height, 4 * width * channels_, [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        const uint8_t* image = inputs[0].codes() + row / height * image_stride_;
        kernels::active().pool.interpolate(
            image, op_.input_, vertical_[static_cast<size_t>(row % height)], horizontal_.data(),
            width, channels_, op_.output_.to(inputs, output, channels_, row * width * channels_));
      }
    });
  }

 private:
  const UpsampleBilinear& op_;
  int64_t images_;
  int64_t channels_;
  int64_t image_stride_;
  std::vector<kernels::Interpolation> vertical_;
  std::vector<kernels::Interpolation> horizontal_;
};

std::unique_ptr<Step> UpsampleBilinear::plan(std::span<const Shape> inputs) const {
  return std::make_unique<UpsampleBilinearStep>(*this, inputs[0]);
}

}  // namespace

std::unique_ptr<Operator> make_upsample_bilinear(const NodeReader& node) {
  return std::make_unique<UpsampleBilinear>(node);
}

}  // namespace qatx::engine
