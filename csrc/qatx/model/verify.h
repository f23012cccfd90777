#pragma once

#include <torch/csrc/jit/api/module.h>

#include "qatx/model/batches.h"
#include "qatx/model/model.h"
#include "qatx/model/verification.h"

namespace qatx {

// Compares a converted model with the model in training form that it was made of.
//
// Both run on the data in evaluation mode. Each value that the model quantizes is compared with the
// codes that the converted model holds for it. The trained model adds its products in float32, the
// converted one exactly, so single codes on the border between two may differ. Throws c10::Error
// (ValueError) where data is empty or the model has no quantization or is not calibrated.
C10_EXPORT Verification verify(const Model& model, torch::jit::Module converted,
                               const Batches& data);

}  // namespace qatx
