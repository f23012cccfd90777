#include "qatx/model/convert.h"

#include "qatx/model/fake_quantizes.h"
#include "qatx/model/trace.h"

namespace qatx {
namespace {

void check_calibrated(torch::nn::Module& module) {
  const auto fake_quantizes = fake_quantizes_of(module);
  TORCH_CHECK_VALUE(!fake_quantizes.empty(),
                    "qatx.convert: the model has no quantization; call qatx.prepare first");
  std::string missing;
  for (const auto& [path, f] : fake_quantizes) {
    if (!f->is_calibrated()) missing += (missing.empty() ? "" : ", ") + path;
  }
  TORCH_CHECK_VALUE(missing.empty(),
                    "qatx.convert: the model is not calibrated; call qatx.calibrate(model, data) "
                    "first. Without a scale: ",
                    missing);
}

}  // namespace

Converted convert(const Model& model, const std::vector<at::Tensor>& example_inputs) {
  check_calibrated(model.module());
  return convert(trace(model, example_inputs), {example_inputs.begin(), example_inputs.end()});
}

}  // namespace qatx
