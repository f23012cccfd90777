#pragma once

#include <c10/macros/Export.h>
#include <torch/csrc/jit/api/module.h>

#include <cstdint>
#include <string>
#include <vector>

namespace qatx {

// What became of one operation of the model.
struct NodeReport {
  std::string name;          // path of the module that called it, "" where it was not recorded
  std::string kind;          // TorchScript operator, for example aten::_convolution
  bool integer;              // runs in integers
  std::string reason;        // why it does not; empty where it does
  int64_t weight_bytes = 0;  // of the integer weights, as they are in the file
  int64_t macs = 0;          // multiply-adds for the example inputs, 0 where unknown
};

struct ConversionReport {
  std::vector<NodeReport> nodes;
};

struct Converted {
  torch::jit::Module module;
  ConversionReport report;
};

// Replaces every part of a traced model that is fake-quantized by integer programs; what has no
// integer form stays float.
//
// - traced: the result of tracing a model in evaluation mode. It is not changed.
// - example_inputs: what forward takes. Their shapes decide which operations are supported, and the
//   report counts with them.
//
// Returns a module with one method, forward, that takes and returns what the traced model did;
// batch size (and, for convolutions, image size) may differ from those of the examples. Throws
// c10::Error where the model writes into tensors in place in a way that cannot be removed, where
// weights hold NaN or infinities, or where forward does not take the example inputs.
C10_EXPORT Converted convert(const torch::jit::Module& traced,
                             const std::vector<c10::IValue>& example_inputs);

}  // namespace qatx
