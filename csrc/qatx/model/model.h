#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/ivalue.h>
#include <c10/macros/Export.h>
#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>

#include <functional>
#include <memory>
#include <string>
#include <type_traits>
#include <unordered_map>
#include <utility>
#include <vector>

namespace qatx {

// A module with its forward, which torch::nn::Module does not declare. Any holder and any shared
// pointer to a module is one:
//   Net net;  qatx::calibrate(net, samples);
// where forward takes one to four tensors and returns a tensor, or a tuple or vector of tensors.
// For all else there is the last constructor. It shares the module.
class C10_EXPORT Model {
 public:
  using Forward = std::function<c10::IValue(const std::vector<at::Tensor>&)>;

  template <class Impl>
  Model(const torch::nn::ModuleHolder<Impl>& holder)  // NOLINT: implicit
      : Model(holder.ptr()) {}
  template <class Impl>
    requires std::is_base_of_v<torch::nn::Module, Impl>
  Model(std::shared_ptr<Impl> module)  // NOLINT: implicit
      : module_(module), forward_(typed_forward(std::move(module))) {}
  Model(std::shared_ptr<torch::nn::Module> module, Forward forward)
      : module_(std::move(module)), forward_(std::move(forward)) {}

  torch::nn::Module& module() const { return *module_; }
  c10::IValue forward(const std::vector<at::Tensor>& inputs) const { return forward_(inputs); }

 private:
  template <class Impl>
  static Forward typed_forward(std::shared_ptr<Impl> module);

  std::shared_ptr<torch::nn::Module> module_;
  Forward forward_;
};

// The path of each module below (and including) a model: "stages.0.conv", "" for itself.
using ModulePaths = std::unordered_map<const torch::nn::Module*, std::string>;
C10_EXPORT ModulePaths paths_of(torch::nn::Module& module);

// Puts a model into evaluation mode, and each module back into its own when it ends.
class C10_EXPORT EvaluationMode {
 public:
  explicit EvaluationMode(torch::nn::Module& module);
  ~EvaluationMode();
  EvaluationMode(const EvaluationMode&) = delete;
  EvaluationMode& operator=(const EvaluationMode&) = delete;

 private:
  std::vector<std::pair<std::shared_ptr<torch::nn::Module>, bool>> before_;
};

template <class Impl>
Model::Forward Model::typed_forward(std::shared_ptr<Impl> module) {
  using Tensor = const at::Tensor&;
  constexpr bool kOne = requires(Impl& m, Tensor a) { m.forward(a); };
  constexpr bool kTwo = requires(Impl& m, Tensor a) { m.forward(a, a); };
  constexpr bool kThree = requires(Impl& m, Tensor a) { m.forward(a, a, a); };
  constexpr bool kFour = requires(Impl& m, Tensor a) { m.forward(a, a, a, a); };
  static_assert(kOne || kTwo || kThree || kFour,
                "forward takes no one to four tensors: use Model(module, forward)");
  return [module = std::move(module)](const std::vector<at::Tensor>& x) -> c10::IValue {
    if constexpr (kOne) {
      if (x.size() == 1) return module->forward(x[0]);
    }
    if constexpr (kTwo) {
      if (x.size() == 2) return module->forward(x[0], x[1]);
    }
    if constexpr (kThree) {
      if (x.size() == 3) return module->forward(x[0], x[1], x[2]);
    }
    if constexpr (kFour) {
      if (x.size() == 4) return module->forward(x[0], x[1], x[2], x[3]);
    }
    TORCH_CHECK_VALUE(false, "the model's forward does not take ", x.size(), " tensors");
  };
}

}  // namespace qatx
