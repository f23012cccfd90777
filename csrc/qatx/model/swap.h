#pragma once

#include <torch/nn/module.h>

#include <functional>
#include <string>
#include <vector>

#include "qatx/model/qconfigs.h"

namespace qatx {

// The layers of torch::nn in Sequential containers, swapped for those of qatx::nn, with their
// outputs in float. Undone when it ends, unless keep() was called.
class LayerSwap {
 public:
  // Paths in `keep_float` are left alone, with all below them. Throws c10::Error (ValueError) where
  // a layer cannot be swapped.
  LayerSwap(torch::nn::Module& model, QConfigs& qconfigs, std::vector<std::string> keep_float);
  ~LayerSwap();
  LayerSwap(const LayerSwap&) = delete;
  LayerSwap& operator=(const LayerSwap&) = delete;

  void keep() { undo_.clear(); }

 private:
  void visit(torch::nn::Module& module, const std::string& path);
  void swap_in_sequential(torch::nn::Module& module, const std::string& path);
  bool stays_float(const std::string& path);

  QConfigs& qconfigs_;
  std::vector<std::string> keep_float_;
  std::vector<bool> found_;  // which of keep_float_ there are
  std::vector<std::function<void()>> undo_;
};

}  // namespace qatx
