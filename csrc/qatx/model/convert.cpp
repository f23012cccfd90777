#include "qatx/model/convert.h"

#include "qatx/model/fake_quantizes.h"
#include "qatx/model/trace.h"

namespace qatx {

Converted convert(const Model& model, const std::vector<at::Tensor>& example_inputs) {
  check_calibrated("qatx.convert", model.module());
  return convert(trace(model, example_inputs), {example_inputs.begin(), example_inputs.end()});
}

}  // namespace qatx
