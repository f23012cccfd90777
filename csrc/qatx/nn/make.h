#pragma once

#include <c10/util/ArrayRef.h>

#include <memory>

#include "qatx/nn/fake_quantize.h"
#include "qatx/nn/qconfig.h"

// The quantizer that a QConfig asks for.

namespace qatx::nn {

// What quantizes a weight of these sizes.
std::shared_ptr<FakeQuantizeImpl> make_weight_fake_quantize(const QConfig& qconfig,
                                                            at::IntArrayRef sizes);

// What quantizes one value between layers. positive: it is the output of a ReLU.
std::shared_ptr<FakeQuantizeImpl> make_activation_fake_quantize(const QConfig& qconfig,
                                                                bool positive);

}  // namespace qatx::nn
