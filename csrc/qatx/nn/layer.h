#pragma once

#include <ATen/core/Tensor.h>
#include <c10/macros/Export.h>
#include <torch/nn/module.h>

#include <optional>
#include <ostream>
#include <utility>

#include "qatx/nn/fake_quantize.h"
#include "qatx/nn/qconfig.h"

// What the layers of qatx::nn share: quantized weights, an optional ReLU, a quantized output.

namespace qatx::nn {

// What is applied to the result of a layer, before it is quantized.
enum class Relu { kNone, kRelu, kRelu6 };

// The part of a layer's options that all layers have.
struct LayerSettings {
  QConfig qconfig = {};
  Relu relu = Relu::kNone;
  bool quantize_output = true;
  // How to quantize the output, where not as `qconfig` says: what reads it decides.
  std::optional<QConfig> output_qconfig = std::nullopt;
};

// The setters for it, which return the options of the layer. Each function without an argument
// returns what was set.
template <class Options>
class LayerOptions {
 public:
  // How to quantize.
  Options& qconfig(QConfig value) {
    settings_.qconfig = std::move(value);
    return static_cast<Options&>(*this);
  }
  const QConfig& qconfig() const { return settings_.qconfig; }
  // Default: none.
  Options& relu(Relu value) {
    settings_.relu = value;
    return static_cast<Options&>(*this);
  }
  Relu relu() const { return settings_.relu; }
  // Whether the output is quantized (default) or left in float: for a consumer that is not an
  // integer operator, or for an Add that is fused with the layer.
  Options& quantize_output(bool value) {
    settings_.quantize_output = value;
    return static_cast<Options&>(*this);
  }
  bool quantize_output() const { return settings_.quantize_output; }

  const LayerSettings& settings() const { return settings_; }

 private:
  LayerSettings settings_;
};

// What follows the arithmetic of a layer. A base beside torch::nn::Module.
class C10_EXPORT QuantizedLayer {
 public:
  explicit QuantizedLayer(LayerSettings settings_) : settings(std::move(settings_)) {}
  virtual ~QuantizedLayer() = default;

  LayerSettings settings;
  // Quantizes the result, after the ReLU; empty where settings.quantize_output is false.
  FakeQuantize output_fake_quantize{nullptr};

  // Quantizes the output from here on, with a new quantizer in the place of one that may be there.
  void quantize_output(QConfig qconfig);

 protected:
  // Registers output_fake_quantize where there is one.
  void register_output();
  at::Tensor finish(at::Tensor y);
  // ", relu=relu6" and the like.
  void print_settings(std::ostream& stream) const;

 private:
  torch::nn::Module& module();
};

// A layer with a weight.
class C10_EXPORT WeightedLayer : public QuantizedLayer {
 public:
  using QuantizedLayer::QuantizedLayer;

  // Quantizes the weight that the layer multiplies with.
  FakeQuantize weight_fake_quantize{nullptr};

 protected:
  // Registers what quantizes a weight of these sizes.
  void register_weight(torch::nn::Module& module, at::IntArrayRef sizes);
};

// Restores the state of LibTorch's random numbers: layers that take over the parameters of others
// are made with random ones first.
class C10_EXPORT KeepRandomState {
 public:
  KeepRandomState();
  ~KeepRandomState();
  KeepRandomState(const KeepRandomState&) = delete;
  KeepRandomState& operator=(const KeepRandomState&) = delete;

 private:
  at::Tensor state_;
};

}  // namespace qatx::nn
