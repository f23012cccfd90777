#include <ATen/ops/empty.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <array>
#include <numeric>

#include "qatx/engine/operators/gemm.h"
#include "qatx/engine/operators/operators.h"
#include "qatx/engine/operators/output.h"
#include "qatx/engine/operators/parallel.h"
#include "qatx/engine/operators/spatial.h"

namespace qatx::engine {
namespace {

constexpr int64_t kMost = 1 << 20;
constexpr int64_t kMostPhases = 64 * 64;  // each has weights of its own

// By dimension: depth, height, width.
using Triple = std::array<int64_t, 3>;
using Taps = std::array<std::vector<int64_t>, 3>;

// Output pixels whose places agree modulo the stride meet the same taps of the kernel: they are a
// convolution of their own, with stride 1.
struct Phase {
  Triple first;  // of its output pixels
  Taps taps;     // how far from (output - first) / stride the inputs of its taps lie
  std::vector<int64_t> kernel_taps;  // the same as indices of the kernel
  PackedGemm gemm;
};

// Inputs: codes [N, C, (D,) H, W]. Attributes: stride, dilation, padding (what is cut off at either
// side), output_padding, each by dimension, groups (1 where it is missing), clamp; tensors weight
// int8 [O, C / groups, (KD,) KH, KW], weight_scale [O], bias [O]. An image is a volume of depth 1.
class ConvTranspose final : public Operator {
 public:
  ConvTranspose(const NodeReader& node, size_t dimensions)
      : name_(node.name()), dimensions_(dimensions), output_(node), input_(node.input(0)) {
    node.check_input_count(1, 1);
    const auto dim = static_cast<int64_t>(dimensions) + 2;
    const LayerWeights all = read_layer_weights(node, dim);  // [O][taps][C]
    const at::Tensor weight = node.tensor("weight", at::kChar, dim);
    out_channels_ = weight.size(0);
    groups_ = node.has_ints("groups") ? node.ints("groups", 1, 1, out_channels_)[0] : 1;
    TORCH_CHECK_VALUE(out_channels_ % groups_ == 0, "qatx program: conv_transpose '", name_,
                      "': ", out_channels_, " output channels do not make ", groups_, " groups");
    in_channels_ = weight.size(1) * groups_;
    for (size_t d = 0; d < dimensions; ++d) {
      kernel_[3 - dimensions + d] = weight.size(static_cast<int64_t>(d) + 2);
    }
    stride_ = read(node, "stride", 1, 64, 1);
    const int64_t phases = stride_[0] * stride_[1] * stride_[2];
    TORCH_CHECK_VALUE(phases <= kMostPhases, "qatx program: conv_transpose '", name_,
                      "': the strides may multiply to ", kMostPhases, " at most, got ", phases);
    dilation_ = read(node, "dilation", 1, kMost, 1);
    padding_ = read(node, "padding", 0, kMost, 0);
    output_padding_ = read(node, "output_padding", 0, kMost, 0);
    for (int64_t d = 0; d < stride_[0]; ++d) {
      for (int64_t h = 0; h < stride_[1]; ++h) {
        for (int64_t w = 0; w < stride_[2]; ++w) add_phase(all, {d, h, w});
      }
    }
  }

  Shape output_shape(std::span<const Shape> inputs) const override {
    const Shape& in = inputs[0];
    check_image_shape(name_, in, dimensions_);
    TORCH_CHECK_VALUE(in[1] == in_channels_, "qatx program: conv_transpose '", name_, "' takes ",
                      in_channels_, " channels, got an input of shape ", at::IntArrayRef(in));
    Shape out = in;
    out[1] = out_channels_;
    for (size_t d = 2; d < in.size(); ++d) {
      const size_t a = d + 1 - dimensions_;
      out[d] = (in[d] - 1) * stride_[a] - 2 * padding_[a] + dilation_[a] * (kernel_[a] - 1) +
               output_padding_[a] + 1;
      TORCH_CHECK_VALUE(out[d] > 0, "qatx program: conv_transpose '", name_,
                        "': nothing is left of an input of shape ", at::IntArrayRef(in));
    }
    check_image_shape(name_, out, dimensions_);
    return out;
  }

  std::unique_ptr<Step> plan(std::span<const Shape> inputs) const override;

  bool writes_apart() const override { return true; }

  int64_t weight_bytes() const override {
    return std::accumulate(
        phases_.begin(), phases_.end(), int64_t{0},
        [](int64_t sum, const Phase& phase) { return sum + phase.gemm.bytes(); });
  }
  std::vector<at::Tensor*> packed_weights() override {
    std::vector<at::Tensor*> all;
    for (Phase& phase : phases_) {
      const auto own = phase.gemm.packed();
      all.insert(all.end(), own.begin(), own.end());
    }
    return all;
  }
  // Each tap is in one phase.
  bool holds_weight() const override { return true; }
  at::Tensor weight() const override {
    const int64_t group_in = in_channels_ / groups_;
    const int64_t taps = kernel_[0] * kernel_[1] * kernel_[2];
    at::Tensor all = at::empty({out_channels_, taps, group_in}, at::kChar);
    for (const Phase& phase : phases_) {
      const at::Tensor own = phase.gemm.unpack().view({out_channels_, -1, group_in});
      for (size_t i = 0; i < phase.kernel_taps.size(); ++i) {
        all.select(1, phase.kernel_taps[i]).copy_(own.select(1, static_cast<int64_t>(i)));
      }
    }
    Shape sizes{out_channels_, group_in};
    sizes.insert(sizes.end(), kernel_.end() - static_cast<int64_t>(dimensions_), kernel_.end());
    return to_node_weight(all, sizes);
  }

 private:
  friend class ConvTransposeStep;

  // Numbers by dimension, with that for a depth that is missing.
  Triple read(const NodeReader& node, const char* key, int64_t least, int64_t most,
              int64_t depth) const {
    const auto numbers = node.ints(key, dimensions_, least, most);
    Triple triple;
    triple[0] = depth;
    std::copy(numbers.begin(), numbers.end(), triple.end() - static_cast<int64_t>(dimensions_));
    return triple;
  }

  // Output o meets tap k where o + padding - k * dilation is a multiple of the stride.
  void add_phase(const LayerWeights& all, Triple first) {
    Taps taps;
    Taps kernel;  // the same as indices of the kernel
    bool empty = false;
    for (size_t d = 0; d < 3; ++d) {
      for (int64_t k = kernel_[d] - 1; k >= 0; --k) {
        const int64_t offset = first[d] + padding_[d] - k * dilation_[d];
        if (offset % stride_[d] != 0) continue;
        taps[d].push_back(offset / stride_[d]);
        kernel[d].push_back(k);
      }
      empty |= taps[d].empty();
    }
    std::vector<int64_t> kernel_taps;
    std::vector<at::Tensor> weights;
    for (const int64_t d : kernel[0]) {
      for (const int64_t h : kernel[1]) {
        for (const int64_t w : kernel[2]) {
          kernel_taps.push_back((d * kernel_[1] + h) * kernel_[2] + w);
          weights.push_back(all.weight.select(1, kernel_taps.back()));
        }
      }
    }
    const int64_t group_in = in_channels_ / groups_;
    if (empty) {  // the bias alone: weights of zero
      taps = {std::vector<int64_t>{0}, {0}, {0}};
      weights = {at::zeros({out_channels_, group_in}, at::kChar)};
    }
    const int64_t together = taps_together(taps[2], 1, in_channels_, groups_);
    const at::Tensor weight =
        at::stack(weights, 1).contiguous().view({out_channels_, -1, together * group_in});
    phases_.push_back({first, std::move(taps), std::move(kernel_taps),
                       PackedGemm({weight, all.weight_scale, all.bias}, input_, groups_)});
  }

  std::string name_;
  size_t dimensions_;
  Output output_;
  kernels::QParams input_;
  int64_t in_channels_ = 0;
  int64_t out_channels_ = 0;
  int64_t groups_ = 1;
  Triple kernel_{1, 1, 1};
  Triple stride_{};
  Triple dilation_{};
  Triple padding_{};
  Triple output_padding_{};
  std::vector<Phase> phases_;
};

class ConvTransposeStep final : public Step {
 public:
  ConvTransposeStep(const ConvTranspose& op, const Shape& in, const Shape& out)
      : op_(op), channels_(out[1]) {
    const size_t dimensions = op.dimensions_;
    std::copy(out.begin() + 2, out.end(), out_.end() - static_cast<int64_t>(dimensions));
    for (const Phase& phase : op.phases_) {
      std::array<Axis, 3> axes;
      for (size_t a = 0; a < 3; ++a) {
        const int64_t left = out_[a] - phase.first[a];
        const int64_t count = left > 0 ? (left + op.stride_[a] - 1) / op.stride_[a] : 0;
        const int64_t size = a + dimensions < 3 ? 1 : in[a + dimensions - 1];
        axes[a] = {size, count, 1, phase.taps[a]};
      }
      if (axes[0].output == 0 || axes[1].output == 0 || axes[2].output == 0) continue;
      const bool planes_follow = op.stride_[0] == 1 && out_[1] == axes[1].output * op.stride_[1];
      parts_.push_back({phase, axes[0].output, axes[1].output, planes_follow,
                        GemmInput(op.name_, axes, in[0], in[1],
                                  taps_together(phase.taps[2], 1, in[1], op.groups_),
                                  static_cast<uint8_t>(op.input_.zero_point))});
    }
  }

  void run(std::span<const Buffer> inputs, Buffer output) const override {
    for (const Part& part : parts_) {
      const PackedGemm& gemm = part.phase.gemm;
      const int64_t work = part.input.width() * gemm.products() * channels_ / 32;
      const auto run_lines = [&](const kernels::Grid& grid, int64_t first) {
        kernels::Epilogue epilogue = op_.output_.to_rows(
            inputs, output, channels_, pixel_of(part, first / part.input.width()));
        const int64_t pixel = epilogue.out_stride;
        epilogue.out_stride = pixel * op_.stride_[2];
        epilogue.out_gap =
            pixel * op_.stride_[1] * out_[2] - epilogue.out_stride * part.input.width();
        gemm.run(grid, epilogue, 0, gemm.blocks());
      };
      parallel_rows(part.input.lines(), work, [&](int64_t begin, int64_t end) {
        // From a plane to the next, the output's lines are not as far apart as within one.
        for (int64_t line = begin; line < end;) {
          const int64_t plane_end = (line / part.height + 1) * part.height;
          const int64_t to = part.planes_follow ? end : std::min(end, plane_end);
          part.input.for_each_part(inputs[0].codes(), line, to, run_lines);
          line = to;
        }
      });
    }
  }

 private:
  struct Part {
    const Phase& phase;
    int64_t depth;       // planes of an image
    int64_t height;      // lines of a plane
    bool planes_follow;  // the lines of the next plane those of the last one
    GemmInput input;
  };

  // The number of a line's first pixel in the output.
  int64_t pixel_of(const Part& part, int64_t line) const {
    const int64_t plane = line / part.height;
    const Triple& first = part.phase.first;
    const int64_t behind =
        plane / part.depth * out_[0] + first[0] + plane % part.depth * op_.stride_[0];
    const int64_t down = behind * out_[1] + first[1] + line % part.height * op_.stride_[1];
    return down * out_[2] + first[2];
  }

  const ConvTranspose& op_;
  int64_t channels_;
  Triple out_{1, 1, 1};
  std::vector<Part> parts_;
};

std::unique_ptr<Step> ConvTranspose::plan(std::span<const Shape> inputs) const {
  return std::make_unique<ConvTransposeStep>(*this, inputs[0], output_shape(inputs));
}

}  // namespace

std::unique_ptr<Operator> make_conv_transpose2d(const NodeReader& node) {
  return std::make_unique<ConvTranspose>(node, 2);
}

std::unique_ptr<Operator> make_conv_transpose3d(const NodeReader& node) {
  return std::make_unique<ConvTranspose>(node, 3);
}

}  // namespace qatx::engine
