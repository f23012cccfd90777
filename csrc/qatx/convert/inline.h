#pragma once

#include <torch/csrc/jit/ir/ir.h>

#include <string>

namespace qatx::torchscript {

// Replaces calls of submodules by what they do, and notes in each node's scope which module it came
// from. `graph` is forward's; its first input is the module.
void inline_modules(torch::jit::Graph& graph);

// Path of the module that a node came from, "layer1.0.conv1"; empty for the outermost.
std::string module_path(const torch::jit::Node* node);

}  // namespace qatx::torchscript
