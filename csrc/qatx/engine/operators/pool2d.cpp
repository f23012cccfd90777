#include <c10/util/Exception.h>

#include <algorithm>

#include "qatx/engine/operators/operators.h"
#include "qatx/engine/operators/output.h"
#include "qatx/engine/operators/parallel.h"
#include "qatx/engine/operators/spatial.h"
#include "qatx/kernels/registry.h"

namespace qatx::engine {
namespace {

constexpr int64_t kMostKernel = 1 << 20;

// The windows of one pooling for one shape of images.
struct PoolPlan {
  Shape out;
  int64_t taps;
  std::vector<int32_t> offsets;
  std::vector<float> divisors;  // elements averaged, by output pixel
};

// Attributes of a window pooling: kernel, stride, dilation, padding, ceil_mode, count_include_pad
// (average only) and divisor_override (average only, 0: none). Instead of them, "adaptive" [OH, OW]
// gives the output's size.
class PoolWindows {
 public:
  explicit PoolWindows(const NodeReader& node) : name_(node.name()) {
    if (node.has_ints("adaptive")) {
      adaptive_ = node.ints("adaptive", 2, 1, kMostKernel);
      return;
    }
    const auto kernel = node.ints("kernel", 2, 1, kMostKernel);
    spatial_ = read_spatial(node, {kernel[0], kernel[1]});
    for (size_t d = 0; d < 4; ++d) {
      TORCH_CHECK_VALUE(spatial_.padding[d] <= spatial_.kernel[d % 2] / 2, "qatx program: '", name_,
                        "': padding must be at most half of the kernel");
    }
    ceil_mode_ = node.ints("ceil_mode", 1, 0, 1)[0] != 0;
    if (node.has_ints("count_include_pad")) {
      count_include_pad_ = node.ints("count_include_pad", 1, 0, 1)[0] != 0;
      divisor_override_ = node.ints("divisor_override", 1, 0, kMostKernel)[0];
    }
  }

  PoolPlan plan(const Shape& in) const {
    check_image_shape(name_, in);
    return adaptive_.empty() ? window_plan(in) : adaptive_plan(in);
  }

 private:
  PoolPlan window_plan(const Shape& in) const {
    const auto size = spatial_.output_size(in[2], in[3], ceil_mode_);
    PoolPlan plan{{in[0], in[1], size[0], size[1]},
                  spatial_.taps(),
                  window_offsets(spatial_, in[2], in[3], in[1], size),
                  {}};
    for (int64_t oh = 0; oh < size[0]; ++oh) {
      for (int64_t ow = 0; ow < size[1]; ++ow) {
        plan.divisors.push_back(static_cast<float>(divisor(in, oh, ow)));
      }
    }
    return plan;
  }

  // As in PyTorch: padding counts when asked for, what lies beyond it (ceil_mode) never does.
  int64_t divisor(const Shape& in, int64_t oh, int64_t ow) const {
    if (divisor_override_ > 0) return divisor_override_;
    const std::array<int64_t, 2> pixel{oh, ow};
    int64_t count = 1;
    for (size_t d = 0; d < 2; ++d) {
      const int64_t size = in[d + 2];
      const int64_t begin = pixel[d] * spatial_.stride[d] - spatial_.padding[d];
      const int64_t end = std::min(begin + spatial_.kernel[d], size + spatial_.padding[d + 2]);
      count *= count_include_pad_ ? end - begin : std::min(end, size) - std::max<int64_t>(begin, 0);
    }
    return count;
  }

  // Output pixel o averages inputs floor(o * size / out) .. ceil((o + 1) * size / out) - 1.
  PoolPlan adaptive_plan(const Shape& in) const {
    const int64_t out_h = adaptive_[0];
    const int64_t out_w = adaptive_[1];
    const auto begin = [](int64_t o, int64_t size, int64_t out) { return o * size / out; };
    const auto end = [](int64_t o, int64_t size, int64_t out) {
      return ((o + 1) * size + out - 1) / out;
    };
    int64_t most_h = 0;
    int64_t most_w = 0;
    for (int64_t o = 0; o < out_h; ++o) {
      most_h = std::max(most_h, end(o, in[2], out_h) - begin(o, in[2], out_h));
    }
    for (int64_t o = 0; o < out_w; ++o) {
      most_w = std::max(most_w, end(o, in[3], out_w) - begin(o, in[3], out_w));
    }
    PoolPlan plan{{in[0], in[1], out_h, out_w}, most_h * most_w, {}, {}};
    for (int64_t oh = 0; oh < out_h; ++oh) {
      for (int64_t ow = 0; ow < out_w; ++ow) {
        const size_t first = plan.offsets.size();
        for (int64_t h = begin(oh, in[2], out_h); h < end(oh, in[2], out_h); ++h) {
          for (int64_t w = begin(ow, in[3], out_w); w < end(ow, in[3], out_w); ++w) {
            plan.offsets.push_back(static_cast<int32_t>((h * in[3] + w) * in[1]));
          }
        }
        plan.divisors.push_back(static_cast<float>(plan.offsets.size() - first));
        plan.offsets.resize(first + static_cast<size_t>(plan.taps), -1);
      }
    }
    return plan;
  }

  std::string name_;
  std::vector<int64_t> adaptive_;
  Spatial spatial_{};
  bool ceil_mode_ = false;
  bool count_include_pad_ = true;
  int64_t divisor_override_ = 0;
};

class Pool2dStep : public Step {
 protected:
  Pool2dStep(const Shape& in, PoolPlan plan)
      : plan_(std::move(plan)),
        channels_(in[1]),
        image_stride_(in[1] * in[2] * in[3]),
        pixels_(plan_.out[2] * plan_.out[3]) {}

  template <typename F>
  void for_rows(Buffer input, const F& f) const {
    const kernels::Window window{input.codes(), image_stride_,        pixels_,
                                 plan_.taps,    plan_.offsets.data(), nullptr};
    parallel_rows(plan_.out[0] * pixels_, plan_.taps * channels_,
                  [&](int64_t begin, int64_t end) { f(window, begin, end); });
  }

  PoolPlan plan_;
  int64_t channels_;
  int64_t image_stride_;
  int64_t pixels_;
};

class MaxPool2dStep final : public Pool2dStep {
 public:
  MaxPool2dStep(const Shape& in, PoolPlan plan) : Pool2dStep(in, std::move(plan)) {}

  void run(std::span<const Buffer> inputs, Buffer output) const override {
    for_rows(inputs[0], [&](const kernels::Window& window, int64_t begin, int64_t end) {
      kernels::active().pool.max(window, channels_, static_cast<uint8_t*>(output.data), begin, end);
    });
  }
};

class MaxPool2d final : public Operator {
 public:
  explicit MaxPool2d(const NodeReader& node) : windows_(node) {
    node.check_input_count(1, 1);
    node.check_same_qparams();
  }

  Shape output_shape(std::span<const Shape> inputs) const override {
    return windows_.plan(inputs[0]).out;
  }

  std::unique_ptr<Step> plan(std::span<const Shape> inputs) const override {
    PoolPlan plan = windows_.plan(inputs[0]);
    for (auto row = plan.offsets.begin(); row != plan.offsets.end(); row += plan.taps) {
      TORCH_CHECK_VALUE(std::any_of(row, row + plan.taps, [](int32_t o) { return o >= 0; }),
                        "qatx program: a window of max_pool2d lies in the padding alone for an "
                        "input of shape ",
                        at::IntArrayRef(inputs[0]));
    }
    return std::make_unique<MaxPool2dStep>(inputs[0], std::move(plan));
  }

 private:
  PoolWindows windows_;
};

class AvgPool2dStep final : public Pool2dStep {
 public:
  AvgPool2dStep(const kernels::QParams& input, const Output& output, const Shape& in, PoolPlan plan)
      : Pool2dStep(in, std::move(plan)), input_(input), output_(output) {
    for (const float divisor : plan_.divisors) multipliers_.push_back(input.scale / divisor);
  }

  void run(std::span<const Buffer> inputs, Buffer output) const override {
    const kernels::Epilogue epilogue = output_.to(inputs, output, channels_);
    for_rows(inputs[0], [&](const kernels::Window& window, int64_t begin, int64_t end) {
      kernels::active().pool.average(window, channels_, input_.zero_point, multipliers_.data(),
                                     epilogue, begin, end);
    });
  }

 private:
  kernels::QParams input_;
  Output output_;
  std::vector<float> multipliers_;
};

class AvgPool2d final : public Operator {
 public:
  explicit AvgPool2d(const NodeReader& node)
      : windows_(node), input_(node.input(0)), output_(node), squeeze_(node.has_ints("squeeze")) {
    node.check_input_count(1, 1);
    TORCH_CHECK_VALUE(!squeeze_ || node.int_list("adaptive") == Shape({1, 1}),
                      "qatx program: avg_pool2d '", node.name(), "': only [1, 1] can be squeezed");
  }

  Shape output_shape(std::span<const Shape> inputs) const override {
    Shape out = windows_.plan(inputs[0]).out;
    if (squeeze_) out.resize(2);
    return out;
  }

  std::unique_ptr<Step> plan(std::span<const Shape> inputs) const override {
    return std::make_unique<AvgPool2dStep>(input_, output_, inputs[0], windows_.plan(inputs[0]));
  }

 private:
  PoolWindows windows_;
  kernels::QParams input_;
  Output output_;
  bool squeeze_;  // a mean over both spatial dimensions that drops them
};

}  // namespace

std::unique_ptr<Operator> make_max_pool2d(const NodeReader& node) {
  return std::make_unique<MaxPool2d>(node);
}

std::unique_ptr<Operator> make_avg_pool2d(const NodeReader& node) {
  return std::make_unique<AvgPool2d>(node);
}

}  // namespace qatx::engine
