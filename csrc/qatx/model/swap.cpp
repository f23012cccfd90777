#include "qatx/model/swap.h"

#include <torch/nn/modules/activation.h>
#include <torch/nn/modules/container/sequential.h>

#include <typeinfo>

#include "qatx/nn/conv.h"
#include "qatx/nn/conv_bn.h"
#include "qatx/nn/embedding.h"
#include "qatx/nn/linear.h"

namespace qatx {
namespace {

using torch::nn::AnyModule;
using torch::nn::Module;

// A derived class may do anything.
template <class Impl>
Impl* exactly(Module& module) {
  return typeid(module) == typeid(Impl) ? static_cast<Impl*>(&module) : nullptr;
}

template <class Impl>
bool pads_with_zeros(const Impl& conv) {
  return std::holds_alternative<torch::enumtype::kZeros>(conv.options.padding_mode());
}

// "Conv2d" and the like for a layer that has a twin in qatx::nn; nullptr for all else.
const char* twin_of(Module& module) {
  if (const auto* conv = exactly<torch::nn::Conv1dImpl>(module)) {
    return pads_with_zeros(*conv) ? "Conv1d" : nullptr;
  }
  if (const auto* conv = exactly<torch::nn::Conv2dImpl>(module)) {
    return pads_with_zeros(*conv) ? "Conv2d" : nullptr;
  }
  if (const auto* conv = exactly<torch::nn::Conv3dImpl>(module)) {
    return pads_with_zeros(*conv) ? "Conv3d" : nullptr;
  }
  if (const auto* table = exactly<torch::nn::EmbeddingImpl>(module)) {
    const auto& options = table->options;
    const bool is_plain = !options.max_norm() && !options.sparse() && !options.scale_grad_by_freq();
    return is_plain ? "Embedding" : nullptr;
  }
  if (const auto* conv = exactly<torch::nn::ConvTranspose1dImpl>(module)) {
    return pads_with_zeros(*conv) ? "ConvTranspose1d" : nullptr;
  }
  if (const auto* conv = exactly<torch::nn::ConvTranspose2dImpl>(module)) {
    return pads_with_zeros(*conv) ? "ConvTranspose2d" : nullptr;
  }
  if (const auto* conv = exactly<torch::nn::ConvTranspose3dImpl>(module)) {
    return pads_with_zeros(*conv) ? "ConvTranspose3d" : nullptr;
  }
  return exactly<torch::nn::LinearImpl>(module) ? "Linear" : nullptr;
}

nn::Relu relu_of(Module& module) {
  if (exactly<torch::nn::ReLUImpl>(module)) return nn::Relu::kRelu;
  return exactly<torch::nn::ReLU6Impl>(module) ? nn::Relu::kRelu6 : nn::Relu::kNone;
}

// The layer of qatx::nn for a float one, and for the batch normalization behind it.
AnyModule quantized(Module& layer, const std::shared_ptr<torch::nn::BatchNorm2dImpl>& bn,
                    const nn::LayerSettings& settings) {
  if (bn) {
    return AnyModule(nn::from_float(*exactly<torch::nn::Conv2dImpl>(layer),
                                    torch::nn::BatchNorm2d(bn), settings));
  }
  if (const auto* conv = exactly<torch::nn::Conv1dImpl>(layer)) {
    return AnyModule(nn::from_float(*conv, settings));
  }
  if (const auto* conv = exactly<torch::nn::Conv2dImpl>(layer)) {
    return AnyModule(nn::from_float(*conv, settings));
  }
  if (const auto* conv = exactly<torch::nn::Conv3dImpl>(layer)) {
    return AnyModule(nn::from_float(*conv, settings));
  }
  if (const auto* table = exactly<torch::nn::EmbeddingImpl>(layer)) {
    return AnyModule(nn::from_float(*table, settings));
  }
  if (const auto* conv = exactly<torch::nn::ConvTranspose1dImpl>(layer)) {
    return AnyModule(nn::from_float(*conv, settings));
  }
  if (const auto* conv = exactly<torch::nn::ConvTranspose2dImpl>(layer)) {
    return AnyModule(nn::from_float(*conv, settings));
  }
  if (const auto* conv = exactly<torch::nn::ConvTranspose3dImpl>(layer)) {
    return AnyModule(nn::from_float(*conv, settings));
  }
  return AnyModule(nn::from_float(*exactly<torch::nn::LinearImpl>(layer), settings));
}

std::string join(const std::string& path, const std::string& name) {
  return path.empty() ? name : path + "." + name;
}

}  // namespace

LayerSwap::LayerSwap(Module& model, QConfigs& qconfigs, std::vector<std::string> keep_float)
    : qconfigs_(qconfigs), keep_float_(std::move(keep_float)), found_(keep_float_.size()) {
  try {
    TORCH_CHECK_VALUE(!twin_of(model),
                      "qatx.prepare: the model is a single torch::nn::", twin_of(model),
                      ", which is called by its type; put it into a "
                      "torch::nn::Sequential");
    visit(model, "");
    for (size_t i = 0; i < keep_float_.size(); ++i) {
      TORCH_CHECK_VALUE(found_[i], "qatx.prepare: keep_float has no module at '", keep_float_[i],
                        "'");
    }
  } catch (...) {
    for (auto undo = undo_.rbegin(); undo != undo_.rend(); ++undo) (*undo)();
    throw;
  }
}

LayerSwap::~LayerSwap() {
  for (auto undo = undo_.rbegin(); undo != undo_.rend(); ++undo) (*undo)();
}

bool LayerSwap::stays_float(const std::string& path) {
  for (size_t i = 0; i < keep_float_.size(); ++i) {
    if (path == keep_float_[i]) {
      found_[i] = true;
      return true;
    }
  }
  return false;
}

void LayerSwap::visit(Module& module, const std::string& path) {
  if (module.as<torch::nn::SequentialImpl>()) {
    swap_in_sequential(module, path);
    return;
  }
  for (const auto& item : module.named_children()) {
    const std::string child_path = join(path, item.key());
    if (stays_float(child_path)) continue;
    Module& child = *item.value();
    const char* twin = twin_of(child);
    TORCH_CHECK_VALUE(
        !twin, "qatx.prepare: ", child_path, " is a torch::nn::", twin ? twin : "",
        " that is called by its type, so it cannot be swapped. Put it into a torch::nn::Sequential "
        "(also inside a ModuleList or ModuleDict), declare it as qatx::nn::",
        twin ? twin : "", ", or leave it in float with PrepareOptions().keep_float({\"", child_path,
        "\"})");
    visit(child, child_path);
  }
}

void LayerSwap::swap_in_sequential(Module& module, const std::string& path) {
  auto& sequential = *module.as<torch::nn::SequentialImpl>();
  const auto children = sequential.named_children();
  const auto put = [&](size_t i, AnyModule made) {
    AnyModule& place = *(sequential.begin() + static_cast<std::ptrdiff_t>(i));
    const std::string name = children[i].key();
    undo_.push_back([&sequential, &place, name, before = place]() mutable {
      sequential.replace_module(name, before.ptr());
      place = std::move(before);
    });
    made.ptr()->train(place.ptr()->is_training());
    sequential.replace_module(name, made.ptr());
    place = std::move(made);
  };
  for (size_t i = 0; i < children.size(); ++i) {
    const std::string child_path = join(path, children[i].key());
    if (stays_float(child_path)) continue;
    Module& layer = *children[i].value();
    if (!twin_of(layer)) {
      visit(layer, child_path);
      continue;
    }
    size_t end = i + 1;
    const auto next = [&]() -> Module* {
      return end < children.size() && !stays_float(join(path, children[end].key()))
                 ? children[end].value().get()
                 : nullptr;
    };
    std::shared_ptr<torch::nn::BatchNorm2dImpl> bn;
    if (exactly<torch::nn::Conv2dImpl>(layer) && next()) {
      auto* norm = exactly<torch::nn::BatchNorm2dImpl>(*next());
      if (norm && norm->running_mean.defined()) {
        bn = std::dynamic_pointer_cast<torch::nn::BatchNorm2dImpl>(children[end++].value());
      }
    }
    nn::LayerSettings settings{.qconfig = qconfigs_.of(child_path), .quantize_output = false};
    const bool takes_relu = !exactly<torch::nn::EmbeddingImpl>(layer);
    if (Module* relu = next(); relu && takes_relu) settings.relu = relu_of(*relu);
    if (settings.relu != nn::Relu::kNone) ++end;
    const bool bn_training = bn && bn->is_training();
    put(i, quantized(layer, bn, settings));
    if (bn) bn->train(bn_training);
    while (++i < end) put(i, AnyModule(torch::nn::Identity()));
    --i;
  }
}

}  // namespace qatx
