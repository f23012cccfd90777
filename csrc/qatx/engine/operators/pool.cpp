#include <c10/util/Exception.h>

#include <algorithm>
#include <limits>

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
// (average only) and divisor_override (average only, 0: none). Instead of them, "adaptive" gives
// the output's spatial sizes.
class PoolWindows {
 public:
  PoolWindows(const NodeReader& node, size_t dimensions)
      : name_(node.name()), dimensions_(dimensions) {
    if (node.has_ints("adaptive")) {
      adaptive_ = node.ints("adaptive", dimensions, 1, kMostKernel);
      return;
    }
    spatial_ = read_spatial(node, node.ints("kernel", dimensions, 1, kMostKernel));
    for (size_t d = 0; d < 2 * dimensions; ++d) {
      TORCH_CHECK_VALUE(spatial_.padding[d] <= spatial_.kernel[d % dimensions] / 2,
                        "qatx program: '", name_, "': padding must be at most half of the kernel");
    }
    ceil_mode_ = node.ints("ceil_mode", 1, 0, 1)[0] != 0;
    if (node.has_ints("count_include_pad")) {
      count_include_pad_ = node.ints("count_include_pad", 1, 0, 1)[0] != 0;
      divisor_override_ = node.ints("divisor_override", 1, 0, kMostKernel)[0];
    }
  }

  PoolPlan plan(const Shape& in) const {
    check_image_shape(name_, in, dimensions_);
    return adaptive_.empty() ? window_plan(in) : adaptive_plan(in);
  }

 private:
  PoolPlan window_plan(const Shape& in) const {
    const auto size = spatial_.output_size(spatial_sizes(in), ceil_mode_);
    PoolPlan plan{
        size, spatial_.taps(), window_offsets(spatial_, spatial_sizes(in), in[1], size), {}};
    plan.out.insert(plan.out.begin(), {in[0], in[1]});
    std::vector<std::vector<int64_t>> counts(dimensions_);
    for (size_t d = 0; d < dimensions_; ++d) {
      for (int64_t o = 0; o < size[d]; ++o) counts[d].push_back(counted(in, d, o));
    }
    plan.divisors = products(counts);
    if (divisor_override_ > 0) {
      std::fill(plan.divisors.begin(), plan.divisors.end(), static_cast<float>(divisor_override_));
    }
    return plan;
  }

  // How many elements along dimension d the window of output o counts. As in PyTorch: padding when
  // asked for, what lies beyond it (ceil_mode) never.
  int64_t counted(const Shape& in, size_t d, int64_t o) const {
    const int64_t size = in[d + 2];
    const int64_t begin = o * spatial_.stride[d] - spatial_.padding[d];
    const int64_t end =
        std::min(begin + spatial_.kernel[d], size + spatial_.padding[d + dimensions_]);
    return count_include_pad_ ? end - begin : std::min(end, size) - std::max<int64_t>(begin, 0);
  }

  // For each output pixel the product of what its coordinates have.
  static std::vector<float> products(const std::vector<std::vector<int64_t>>& counts) {
    std::vector<int64_t> all{1};
    for (const auto& along : counts) {
      std::vector<int64_t> longer;
      for (const int64_t before : all) {
        for (const int64_t count : along) longer.push_back(before * count);
      }
      all = std::move(longer);
    }
    return {all.begin(), all.end()};
  }

  // Output o averages inputs floor(o * size / out) .. ceil((o + 1) * size / out) - 1 along each
  // dimension.
  PoolPlan adaptive_plan(const Shape& in) const {
    // Where the elements lie that each output pixel averages.
    std::vector<std::vector<int32_t>> windows{{0}};
    int64_t taps = 1;
    for (size_t d = 0; d < dimensions_; ++d) {
      const int64_t size = in[d + 2];
      const int64_t out = adaptive_[d];
      int64_t most = 0;
      std::vector<std::vector<int32_t>> finer;
      for (const auto& window : windows) {
        for (int64_t o = 0; o < out; ++o) {
          const int64_t begin = o * size / out;
          const int64_t end = ((o + 1) * size + out - 1) / out;
          most = std::max(most, end - begin);
          finer.emplace_back();
          for (const int32_t offset : window) {
            for (int64_t i = begin; i < end; ++i) {
              finer.back().push_back(static_cast<int32_t>(offset * size + i));
            }
          }
        }
      }
      taps *= most;
      windows = std::move(finer);
    }
    PoolPlan plan{adaptive_, taps, {}, {}};
    plan.out.insert(plan.out.begin(), {in[0], in[1]});
    for (const auto& window : windows) {
      const size_t first = plan.offsets.size();
      for (const int32_t pixel : window) {
        plan.offsets.push_back(pixel * static_cast<int32_t>(in[1]));
      }
      plan.divisors.push_back(static_cast<float>(window.size()));
      plan.offsets.resize(first + static_cast<size_t>(taps), -1);
    }
    return plan;
  }

  std::string name_;
  size_t dimensions_;
  std::vector<int64_t> adaptive_;
  Spatial spatial_{};
  bool ceil_mode_ = false;
  bool count_include_pad_ = true;
  int64_t divisor_override_ = 0;
};

class PoolStep : public Step {
 protected:
  // The pixels of the input lie `pitch` apart.
  PoolStep(const Shape& in, PoolPlan plan, int64_t pitch)
      : plan_(std::move(plan)),
        channels_(in[1]),
        image_stride_(pitch * pixel_count(in)),
        pixels_(pixel_count(plan_.out)) {
    for (int32_t& offset : plan_.offsets) {
      if (offset > 0) offset = static_cast<int32_t>(offset / channels_ * pitch);
    }
  }

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

class MaxPoolStep final : public PoolStep {
 public:
  MaxPoolStep(const Shape& in, PoolPlan plan, int64_t pitch)
      : PoolStep(in, std::move(plan), pitch) {}

  void run(std::span<const Buffer> inputs, Buffer output) const override {
    for_rows(inputs[0], [&](const kernels::Window& window, int64_t begin, int64_t end) {
      kernels::active().pool.max(window, channels_, static_cast<uint8_t*>(output.data), begin, end);
    });
  }
};

class MaxPool final : public Operator {
 public:
  MaxPool(const NodeReader& node, size_t dimensions) : windows_(node, dimensions) {
    node.check_input_count(1, 1);
    node.check_same_qparams();
  }

  Shape output_shape(std::span<const Shape> inputs) const override {
    return windows_.plan(inputs[0]).out;
  }

  std::unique_ptr<Step> plan(std::span<const Shape> inputs) const override {
    return plan_apart(inputs, inputs[0][1]);
  }

  std::unique_ptr<Step> plan_apart(std::span<const Shape> inputs, int64_t pitch) const override {
    // Offsets are 32-bit numbers.
    if (pixel_count(inputs[0]) > std::numeric_limits<int32_t>::max() / pitch) return nullptr;
    PoolPlan plan = windows_.plan(inputs[0]);
    for (auto row = plan.offsets.begin(); row != plan.offsets.end(); row += plan.taps) {
      TORCH_CHECK_VALUE(std::any_of(row, row + plan.taps, [](int32_t o) { return o >= 0; }),
                        "qatx program: a window of a max pooling lies in the padding alone for an "
                        "input of shape ",
                        at::IntArrayRef(inputs[0]));
    }
    return std::make_unique<MaxPoolStep>(inputs[0], std::move(plan), pitch);
  }

 private:
  PoolWindows windows_;
};

class AvgPoolStep final : public PoolStep {
 public:
  AvgPoolStep(const kernels::QParams& input, const Output& output, const Shape& in, PoolPlan plan)
      : PoolStep(in, std::move(plan), in[1]), input_(input), output_(output) {
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

class AvgPool final : public Operator {
 public:
  AvgPool(const NodeReader& node, size_t dimensions)
      : windows_(node, dimensions),
        input_(node.input(0)),
        output_(node),
        squeeze_(node.has_ints("squeeze")) {
    node.check_input_count(1, 1);
    TORCH_CHECK_VALUE(!squeeze_ || node.int_list("adaptive") == Shape(dimensions, 1),
                      "qatx program: average pooling '", node.name(),
                      "': only one pixel can be squeezed");
  }

  Shape output_shape(std::span<const Shape> inputs) const override {
    Shape out = windows_.plan(inputs[0]).out;
    if (squeeze_) out.resize(2);
    return out;
  }

  std::unique_ptr<Step> plan(std::span<const Shape> inputs) const override {
    return std::make_unique<AvgPoolStep>(input_, output_, inputs[0], windows_.plan(inputs[0]));
  }

 private:
  PoolWindows windows_;
  kernels::QParams input_;
  Output output_;
  bool squeeze_;  // a mean over both spatial dimensions that drops them
};

}  // namespace

std::unique_ptr<Operator> make_max_pool2d(const NodeReader& node) {
  return std::make_unique<MaxPool>(node, 2);
}

std::unique_ptr<Operator> make_max_pool3d(const NodeReader& node) {
  return std::make_unique<MaxPool>(node, 3);
}

std::unique_ptr<Operator> make_avg_pool2d(const NodeReader& node) {
  return std::make_unique<AvgPool>(node, 2);
}

std::unique_ptr<Operator> make_avg_pool3d(const NodeReader& node) {
  return std::make_unique<AvgPool>(node, 3);
}

}  // namespace qatx::engine
