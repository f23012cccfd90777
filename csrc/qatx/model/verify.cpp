#include "qatx/model/verify.h"

#include <ATen/core/grad_mode.h>

#include "qatx/model/comparison.h"
#include "qatx/model/fake_quantizes.h"
#include "qatx/nn/fake_quantize.h"
#include "qatx/nn/listener.h"

namespace qatx {
namespace {

// Keeps what the activations' fake quantizers of a model return.
class Values : public nn::Listener {
 public:
  explicit Values(const ModulePaths& paths) : paths_(paths) {}

  void leave(const torch::nn::Module& module, const at::Tensor& output) override {
    const auto* f = module.as<nn::FakeQuantizeImpl>();
    if (!f || f->options.role() != nn::Role::kActivation) return;
    made.emplace_back(paths_.at(&module), output);
  }

  Comparison::Values made;

 private:
  const ModulePaths& paths_;
};

}  // namespace

Verification verify(const Model& model, torch::jit::Module converted, const Batches& data) {
  check_calibrated("qatx.verify", model.module());
  const at::NoGradGuard no_grad;
  const EvaluationMode evaluation(model.module());
  const ModulePaths paths = paths_of(model.module());
  Comparison comparison(std::move(converted));
  data.for_each([&](const at::Tensor& x) {
    Values values(paths);
    const c10::IValue output = model.forward({x});
    comparison.add({x}, values.made, tensors_in(output));
    return true;
  });
  return comparison.finish();
}

}  // namespace qatx
