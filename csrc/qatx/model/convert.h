#pragma once

#include <vector>

#include "qatx/convert/convert.h"
#include "qatx/model/model.h"

namespace qatx {

// Turns a calibrated, perhaps trained, model into TorchScript that computes with integers. The
// model is not changed.
//
// - example_inputs: forward's arguments. The model is traced with them; batch and image sizes may
//   differ later.
//
// Returns the converted model, for module.save(path) and torch::jit::load, and a report of what
// became integer and what stayed float. Throws c10::Error where the model is not prepared or not
// calibrated (ValueError) or cannot be traced.
C10_EXPORT Converted convert(const Model& model, const std::vector<at::Tensor>& example_inputs);

}  // namespace qatx
