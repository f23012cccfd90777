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
  // How far from (output - first) / stride the input of each tap lies.
  std::vector<std::array<int64_t, 2>> taps;
  std::vector<PackedGemm> gemms;  // one for each group
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

 private:
  friend class ConvTranspose2dStep;

  static std::array<int64_t, 2> read_pair(const NodeReader& node, const char* key, int64_t least,
                                          int64_t most) {
    const auto numbers = node.ints(key, 2, least, most);
    return {numbers[0], numbers[1]};
  }

  // Output o meets tap k where o + padding - k * dilation is a multiple of the stride.
  void add_phase(const LayerWeights& all, std::array<int64_t, 2> first) {
    std::vector<std::array<int64_t, 2>> taps;
    std::vector<at::Tensor> weights;
    const auto offset = [&](size_t d, int64_t k) {
      return first[d] + padding_[d] - k * dilation_[d];
    };
    for (int64_t h = 0; h < kernel_[0]; ++h) {
      for (int64_t w = 0; w < kernel_[1]; ++w) {
        const int64_t y = offset(0, h);
        const int64_t x = offset(1, w);
        if (y % stride_[0] != 0 || x % stride_[1] != 0) continue;
        taps.push_back({y / stride_[0], x / stride_[1]});
        weights.push_back(all.weight.select(1, h * kernel_[1] + w));
      }
    }
    if (taps.empty()) {  // the bias alone: one tap that always lies in the padding
      taps.push_back({-kMost * 2, 0});
      weights.push_back(at::zeros({out_channels_, in_channels_ / groups_}, at::kChar));
    }
    const at::Tensor weight = at::stack(weights, 1);
    const int64_t group_out = out_channels_ / groups_;
    std::vector<PackedGemm> gemms;
    for (int64_t c = 0; c < out_channels_; c += group_out) {
      const auto part = [&](const at::Tensor& whole) {
        return whole.narrow(0, c, group_out).contiguous();
      };
      gemms.emplace_back(LayerWeights{part(weight), part(all.weight_scale), part(all.bias)},
                         input_);
    }
    phases_.push_back({first, std::move(taps), std::move(gemms)});
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
      : op_(op),
        in_(in),
        out_(std::move(out)),
        pad_(static_cast<size_t>(in[1] + kernels::kOverRead),
             static_cast<uint8_t>(op.input_.zero_point)) {
    for (const Phase& phase : op.phases_) {
      offsets_.emplace_back();
      for (int64_t y = 0; y < count(phase, 0); ++y) {
        for (int64_t x = 0; x < count(phase, 1); ++x) {
          for (const auto& [down, right] : phase.taps) {
            const bool inside =
                y + down >= 0 && y + down < in[2] && x + right >= 0 && x + right < in[3];
            const int64_t offset = ((y + down) * in[3] + x + right) * in[1];
            offsets_.back().push_back(inside ? static_cast<int32_t>(offset) : -1);
          }
        }
      }
    }
  }

  void run(std::span<const Buffer> inputs, Buffer output) const override {
    const int64_t image = in_[1] * in_[2] * in_[3];
    for (size_t p = 0; p < op_.phases_.size(); ++p) {
      const Phase& phase = op_.phases_[p];
      const int64_t height = count(phase, 0);
      const int64_t width = count(phase, 1);
      if (height == 0 || width == 0) continue;
      const auto taps = static_cast<int64_t>(phase.taps.size());
      const int64_t work = width * taps * in_[1] * out_[1] / op_.groups_ / 32;
      parallel_rows(in_[0] * height, work, [&](int64_t begin, int64_t end) {
        for (int64_t row = begin; row < end; ++row) {
          const int64_t y = row % height;
          kernels::Window window{inputs[0].codes() + row / height * image, image,      width, taps,
                                 offsets_[p].data() + y * width * taps,    pad_.data()};
          const int64_t down = row / height * out_[2] + phase.first[0] + y * op_.stride_[0];
          int64_t first = (down * out_[3] + phase.first[1]) * out_[1];
          for (const PackedGemm& gemm : phase.gemms) {
            // Its pixels of one row of the output lie `stride` pixels apart.
            gemm.run(window, width,
                     op_.output_.to(inputs, output, out_[1] * op_.stride_[1], first));
            window.input += in_[1] / op_.groups_;
            first += out_[1] / op_.groups_;
          }
        }
      });
    }
  }

 private:
  int64_t count(const Phase& phase, size_t d) const {
    const int64_t left = out_[d + 2] - phase.first[d];
    return left > 0 ? (left + op_.stride_[d] - 1) / op_.stride_[d] : 0;
  }

  const ConvTranspose2d& op_;
  Shape in_;
  Shape out_;
  std::vector<uint8_t> pad_;
  std::vector<std::vector<int32_t>> offsets_;  // by phase
};

std::unique_ptr<Step> ConvTranspose2d::plan(std::span<const Shape> inputs) const {
  return std::make_unique<ConvTranspose2dStep>(*this, inputs[0], output_shape(inputs));
}

}  // namespace

std::unique_ptr<Operator> make_conv_transpose2d(const NodeReader& node) {
  return std::make_unique<ConvTranspose2d>(node);
}

}  // namespace qatx::engine
