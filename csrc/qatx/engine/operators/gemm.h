#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "qatx/engine/node_reader.h"
#include "qatx/kernels/depthwise.h"
#include "qatx/kernels/indirect_gemm.h"

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
// "weight_scale", "bias".
LayerWeights read_layer_weights(const NodeReader& node, int64_t dim);

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

// An integer matrix product with packed weights: all of a linear layer, or one group of a
// convolution.
class PackedGemm {
 public:
  PackedGemm(const LayerWeights& weights, const kernels::QParams& input);
  void run(const kernels::Window& window, int64_t rows, kernels::Epilogue epilogue) const;

 private:
  const kernels::GemmKernel& kernel_;
  int64_t n_;
  int64_t k_;
  at::Tensor packed_;
  ChannelTerms terms_;
};

class PackedDepthwise {
 public:
  PackedDepthwise(const LayerWeights& weights, const kernels::QParams& input);
  void run(const kernels::Window& window, int64_t rows, kernels::Epilogue epilogue) const;

 private:
  const kernels::DepthwiseKernel& kernel_;
  int64_t channels_;
  at::Tensor packed_;
  ChannelTerms terms_;
};

}  // namespace qatx::engine
