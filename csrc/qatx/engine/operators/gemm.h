#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <vector>

#include "qatx/engine/codebook.h"
#include "qatx/engine/node_reader.h"
#include "qatx/engine/operators/gemm_input.h"
#include "qatx/kernels/depthwise.h"
#include "qatx/kernels/gemm.h"

namespace qatx::engine {

// 65,536 products of 255 * 128 still fit an int32.
inline constexpr int64_t kMostProducts = 65536;

// Weights of a convolution or linear layer as a node holds them, checked.
struct LayerWeights {
  at::Tensor weight;        // int8, [n][taps][k]
  at::Tensor weight_scale;  // float32 [n]
  at::Tensor bias;          // float32 [n]
};

// Reads "weight" (int8 of `dim` dimensions, output channels first, spatial ones last),
// "weight_scale", "bias", for an input with this scale; without one: with that of input 0.
LayerWeights read_layer_weights(const NodeReader& node, int64_t dim, float input_scale);
LayerWeights read_layer_weights(const NodeReader& node, int64_t dim);

// The reverse for the weights: int8 of these sizes, from int8 [n][taps][k].
at::Tensor to_node_weight(const at::Tensor& weight, at::IntArrayRef sizes);

// What a kernel needs beside its packed weights, padded to whole blocks:
//   start[c] = -zero_point * sum(weight[c]),  scale[c] = input.scale * weight_scale[c],  bias[c]
class ChannelTerms {
 public:
  ChannelTerms(const LayerWeights& weights, const kernels::QParams& input, int64_t block);

  const int32_t* start() const { return start_.data(); }
  void set(kernels::Epilogue& epilogue) const;

 private:
  std::vector<int32_t> start_;
  std::vector<float> scale_;
  std::vector<float> bias_;
};

// Integer matrix products with packed weights: a linear layer, or the groups of a convolution,
// which share the channels of input and output evenly.
class PackedGemm {
 public:
  // Segments take the place of taps in `weights`.
  PackedGemm(const LayerWeights& weights, const kernels::QParams& input, int64_t groups = 1);

  int64_t groups() const { return static_cast<int64_t>(groups_.size()); }
  // Of a group.
  int64_t columns() const { return n_; }
  int64_t blocks() const { return kernels::ceil_div(n_, kernel_.block); }
  // What an output pixel sums.
  int64_t products() const { return segments_ * k_; }

  // The blocks [block_begin, block_end) of each group. `grid` and `epilogue` are the first group's.
  void run(kernels::Grid grid, kernels::Epilogue epilogue, int64_t block_begin,
           int64_t block_end) const;

  // The weights that it was made of: int8 [n][segments][k].
  at::Tensor unpack() const;
  // Of packed weights, decoded.
  int64_t bytes() const { return groups() * blocks() * block_bytes_; }
  // Of each group, as Operator::packed_weights() has them.
  std::vector<at::Tensor*> packed();

 private:
  struct Group {
    CodedBytes packed;
    ChannelTerms terms;
  };

  void run_group(const Group& group, const kernels::Grid& grid, const kernels::Epilogue& epilogue,
                 int64_t block_begin, int64_t block_end) const;

  const kernels::GemmKernel& kernel_;
  int64_t n_;
  int64_t segments_;
  int64_t k_;
  int64_t block_bytes_;
  std::vector<Group> groups_;
};

// The epilogue of rows from `first_row` on.
using EpilogueOf = std::function<kernels::Epilogue(int64_t first_row)>;

// Multiplies all rows of `input`, whose memory `codes` is, with the weights, on Torch's threads.
void run_product(const GemmInput& input, const uint8_t* codes, const PackedGemm& gemm,
                 const EpilogueOf& epilogue_of);

class PackedDepthwise {
 public:
  PackedDepthwise(const LayerWeights& weights, const kernels::QParams& input);
  void run(const kernels::Window& window, int64_t rows, kernels::Epilogue epilogue) const;

  // The weights that it was made of: int8 [channels][taps][1].
  at::Tensor unpack() const;
  // Of packed weights.
  int64_t bytes() const { return packed_.numel(); }
  std::vector<at::Tensor*> packed() { return {&packed_}; }

 private:
  const kernels::DepthwiseKernel& kernel_;
  int64_t channels_;
  int64_t taps_;
  at::Tensor packed_;
  ChannelTerms terms_;
};

}  // namespace qatx::engine
