#pragma once

#include <string>
#include <utility>
#include <vector>

#include "qatx/nn/fake_quantize.h"

namespace qatx {

// The fake quantizers of a model and their paths, in the order of its modules.
std::vector<std::pair<std::string, std::shared_ptr<nn::FakeQuantizeImpl>>> fake_quantizes_of(
    torch::nn::Module& module);

// Throws c10::Error (ValueError), in the name of the function `owner`, where there are none, or one
// lacks its scale.
void check_calibrated(const char* owner, torch::nn::Module& module);

}  // namespace qatx
