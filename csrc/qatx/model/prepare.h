#pragma once

#include <torch/arg.h>

#include <map>
#include <string>
#include <vector>

#include "qatx/model/model.h"
#include "qatx/nn/qconfig.h"

namespace qatx {

// Other ways for single layers, by their paths or those of modules around them.
using QConfigOverrides = std::map<std::string, QConfig>;

struct PrepareOptions {
  // The longest path that leads to a convolution, linear layer or embedding counts. A layer's
  // QConfig says how its weight and the values that it reads are quantized; a value that several
  // read is quantized for the one with the most bits. The weight of a layer that was written as one
  // of qatx::nn stays as it was made.
  TORCH_ARG(QConfigOverrides, overrides) = {};
  // Paths of layers, or of modules around them, that stay in float.
  TORCH_ARG(std::vector<std::string>, keep_float) = {};
};

// Turns a float model, in place, into one that trains with quantized weights and activations.
//
// Layers: in each torch::nn::Sequential, Conv1d, Conv2d, Conv3d, ConvTranspose1d, ConvTranspose2d,
// ConvTranspose3d and Linear, with the BatchNorm2d (of a Conv2d) and the ReLU or ReLU6 behind them,
// and Embedding become layers of qatx::nn, under the path of the convolution or linear layer; what
// was fused is an Identity then. A Sequential calls its layers itself; a layer that other code
// calls by its type (a member, an element of a ModuleList or ModuleDict) cannot be swapped and is
// an error that says what to write: put it into a Sequential, or write it as a layer of qatx::nn.
// Containers are searched, to any depth.
//
// Values: a value is quantized where it is made, once, if a convolution, a linear layer or an
// addition reads it, directly or behind operators that keep values (max pooling, reshaping,
// dropout, ...). C++ cannot put operators into a forward, so a value must be made by a layer of
// qatx::nn: an addition is written as qatx::nn::Add, a product as Mul, a concatenation as Cat, and
// what comes from the outside, from an average pooling, an activation function, a softmax or a
// layer normalization goes through a QuantStub, all made with quantize_output(false), with which
// they are plain float operators until they are prepared. Attention is written as
// qatx::nn::ScaledDotProductAttention, made with quantize_probabilities(false); its key and value
// are quantized symmetrically, because they take the place of weights. One operand of an Add that
// is the output of a convolution or linear layer and is used nowhere else stays in float, because
// the addition is then done inside that layer. So does what only a softmax or a layer normalization
// reads. The model's outputs are not quantized.
//
// With ActivationQuantizer::kDynamic linear layers quantize what they read themselves, row by row,
// so that nothing need be written for them; and what has no weight (Add, attention) stays float.
//
// - model: float32, not prepared. Optimizers have to be made after this.
// - example_inputs: forward's arguments; it runs once with them, to see which layers read what.
// - qconfig: how to quantize.
//
// Call qatx::calibrate next. Throws c10::Error (ValueError) for what is said above, where the model
// is prepared already or has nothing to quantize, where a QConfig is none, or where no layer is at
// a path of the options; the model is then as it was before.
C10_EXPORT void prepare(const Model& model, const std::vector<at::Tensor>& example_inputs,
                        const QConfig& qconfig = {}, const PrepareOptions& options = {});

}  // namespace qatx
