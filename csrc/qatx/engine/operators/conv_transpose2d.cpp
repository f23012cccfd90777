#include <ATen/ops/empty.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>
#include <c10/util/Exception.h>

#include "qatx/engine/operators/gemm.h"
#include "qatx/engine/operators/operators.h"
#include "qatx/engine/operators/output.h"
#include "qatx/engine/operators/parallel.h"
#include "qatx/engine/operators/spatial.h"

namespace qatx::engine {
namespace {

constexpr int64_t kMost = 1 << 20;

// Output pixels whose places agree modulo the stride meet the same taps of the kernel: they are a
// convolution of their own, with stride 1.
struct Phase {
  std::array<int64_t, 2> first;  // of its output pixels
  // How far from (output - first) / stride the inputs of its taps lie, in each dimension.
  std::array<std::vector<int64_t>, 2> taps;
  std::vector<int64_t> kernel_taps;  // the same as indices of the kernel
  PackedGemm gemm;
};

// Inputs: codes [N, C, H, W]. Attributes: stride, dilation, padding (vertical, horizontal: what is
// cut off at either side), output_padding, groups (1 where it is missing), clamp; tensors weight
// int8 [O, C / groups, KH, KW], weight_scale [O], bias [O].
class ConvTranspose2d final : public Operator {
 public:
  explicit ConvTranspose2d(const NodeReader& node)
      : name_(node.name()), output_(node), input_(node.input(0)) {
    node.check_input_count(1, 1);
    const LayerWeights all = read_layer_weights(node, 4);  // [O][taps][C]
    const at::Tensor weight = node.tensor("weight", at::kChar, 4);
    out_channels_ = weight.size(0);
    groups_ = node.has_ints("groups") ? node.ints("groups", 1, 1, out_channels_)[0] : 1;
    TORCH_CHECK_VALUE(out_channels_ % groups_ == 0, "qatx program: conv_transpose2d '", name_,
                      "': ", out_channels_, " output channels do not make ", groups_, " groups");
    in_channels_ = weight.size(1) * groups_;
    kernel_ = {weight.size(2), weight.size(3)};
    stride_ = read_pair(node, "stride", 1, 64);
    dilation_ = read_pair(node, "dilation", 1, kMost);
    padding_ = read_pair(node, "padding", 0, kMost);
    output_padding_ = read_pair(node, "output_padding", 0, kMost);
    for (int64_t h = 0; h < stride_[0]; ++h) {
      for (int64_t w = 0; w < stride_[1]; ++w) add_phase(all, {h, w});
    }
  }

  Shape output_shape(std::span<const Shape> inputs) const override {
    const Shape& in = inputs[0];
    check_image_shape(name_, in, 2);
    TORCH_CHECK_VALUE(in[1] == in_channels_, "qatx program: conv_transpose2d '", name_, "' takes ",
                      in_channels_, " channels, got an input of shape ", at::IntArrayRef(in));
    Shape out{in[0], out_channels_, 0, 0};
    for (size_t d = 0; d < 2; ++d) {
      out[d + 2] = (in[d + 2] - 1) * stride_[d] - 2 * padding_[d] +
                   dilation_[d] * (kernel_[d] - 1) + output_padding_[d] + 1;
      TORCH_CHECK_VALUE(out[d + 2] > 0, "qatx program: conv_transpose2d '", name_,
                        "': nothing is left of an input of shape ", at::IntArrayRef(in));
    }
    check_image_shape(name_, out, 2);
    return out;
  }

  std::unique_ptr<Step> plan(std::span<const Shape> inputs) const override;

  bool writes_apart() const override { return true; }

  // Each tap is in one phase.
  bool holds_weight() const override { return true; }
  at::Tensor weight() const override {
    const int64_t group_in = in_channels_ / groups_;
    const int64_t taps = kernel_[0] * kernel_[1];
    at::Tensor all = at::empty({out_channels_, taps, group_in}, at::kChar);
    for (const Phase& phase : phases_) {
      const at::Tensor own = phase.gemm.unpack().view({out_channels_, -1, group_in});
      for (size_t i = 0; i < phase.kernel_taps.size(); ++i) {
        all.select(1, phase.kernel_taps[i]).copy_(own.select(1, static_cast<int64_t>(i)));
      }
    }
    return to_node_weight(all, {out_channels_, group_in, kernel_[0], kernel_[1]});
  }

 private:
  friend class ConvTranspose2dStep;

  static std::array<int64_t, 2> read_pair(const NodeReader& node, const char* key, int64_t least,
                                          int64_t most) {
    const auto numbers = node.ints(key, 2, least, most);
    return {numbers[0], numbers[1]};
  }

  // Output o meets tap k where o + padding - k * dilation is a multiple of the stride.
  void add_phase(const LayerWeights& all, std::array<int64_t, 2> first) {
    std::array<std::vector<int64_t>, 2> taps;
    std::array<std::vector<int64_t>, 2> kernel;  // the same as indices of the kernel
    for (size_t d = 0; d < 2; ++d) {
      for (int64_t k = kernel_[d] - 1; k >= 0; --k) {
        const int64_t offset = first[d] + padding_[d] - k * dilation_[d];
        if (offset % stride_[d] != 0) continue;
        taps[d].push_back(offset / stride_[d]);
        kernel[d].push_back(k);
      }
    }
    const bool empty = taps[0].empty() || taps[1].empty();
    if (empty) taps = {std::vector<int64_t>{0}, {0}};  // the bias alone: weights of zero
    std::vector<int64_t> kernel_taps;
    std::vector<at::Tensor> weights;
    for (const int64_t h : kernel[0]) {
      for (const int64_t w : kernel[1]) {
        kernel_taps.push_back(h * kernel_[1] + w);
        weights.push_back(all.weight.select(1, kernel_taps.back()));
      }
    }
    const int64_t group_in = in_channels_ / groups_;
    if (empty) weights = {at::zeros({out_channels_, group_in}, at::kChar)};
    const int64_t together = taps_together(taps[1], 1, in_channels_, groups_);
    const at::Tensor weight =
        at::stack(weights, 1).contiguous().view({out_channels_, -1, together * group_in});
    phases_.push_back({first, std::move(taps), std::move(kernel_taps),
                       PackedGemm({weight, all.weight_scale, all.bias}, input_, groups_)});
  }

  std::string name_;
  Output output_;
  kernels::QParams input_;
  int64_t in_channels_ = 0;
  int64_t out_channels_ = 0;
  int64_t groups_ = 1;
  std::array<int64_t, 2> kernel_{};
  std::array<int64_t, 2> stride_{};
  std::array<int64_t, 2> dilation_{};
  std::array<int64_t, 2> padding_{};
  std::array<int64_t, 2> output_padding_{};
  std::vector<Phase> phases_;
};

class ConvTranspose2dStep final : public Step {
 public:
  ConvTranspose2dStep(const ConvTranspose2d& op, const Shape& in, Shape out)
      : op_(op), out_(std::move(out)) {
    for (const Phase& phase : op.phases_) {
      std::array<Axis, 3> axes;
      for (size_t d = 0; d < 2; ++d) {
        const int64_t left = out_[d + 2] - phase.first[d];
        const int64_t count = left > 0 ? (left + op.stride_[d] - 1) / op.stride_[d] : 0;
        axes[d + 1] = {in[d + 2], count, 1, phase.taps[d]};
      }
      if (axes[1].output == 0 || axes[2].output == 0) continue;
      parts_.push_back({phase, axes[1].output,
                        GemmInput(op.name_, axes, in[0], in[1], op.groups_,
                                  static_cast<uint8_t>(op.input_.zero_point))});
    }
  }

  void run(std::span<const Buffer> inputs, Buffer output) const override {
    for (const Part& part : parts_) {
      const PackedGemm& gemm = part.phase.gemm;
      const int64_t blocks = gemm.blocks();
      const int64_t work = part.input.width() * gemm.products() * out_[1] / 32;
      const auto run_line = [&](const kernels::Grid& grid, int64_t first) {
        const int64_t line = first / part.input.width();
        const int64_t down = line / part.height * out_[2] + part.phase.first[0] +
                             line % part.height * op_.stride_[0];
        const int64_t pixel = down * out_[3] + part.phase.first[1];
        // Its pixels of one row of the output lie `stride` pixels apart.
        gemm.run(grid, op_.output_.to_rows(inputs, output, out_[1], pixel, op_.stride_[1]), 0,
                 blocks);
      };
      parallel_rows(part.input.lines(), work, [&](int64_t begin, int64_t end) {
        for (int64_t line = begin; line < end; ++line) {
          part.input.for_each_part(inputs[0].codes(), line, line + 1, run_line);
        }
      });
    }
  }

 private:
  struct Part {
    const Phase& phase;
    int64_t height;  // lines of an image
    GemmInput input;
  };

  const ConvTranspose2d& op_;
  Shape out_;
  std::vector<Part> parts_;
};

std::unique_ptr<Step> ConvTranspose2d::plan(std::span<const Shape> inputs) const {
  return std::make_unique<ConvTranspose2dStep>(*this, inputs[0], output_shape(inputs));
}

}  // namespace

std::unique_ptr<Operator> make_conv_transpose2d(const NodeReader& node) {
  return std::make_unique<ConvTranspose2d>(node);
}

}  // namespace qatx::engine
