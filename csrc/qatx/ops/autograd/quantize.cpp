#include "qatx/ops/quantize.h"

#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>
#include <torch/library.h>

namespace qatx {

// Integer codes have no gradient: asking for one is an error, not a silent zero.
TORCH_LIBRARY_IMPL(qatx, Autograd, m) {
  for (const char* name : {"quantize", "dequantize", "quantize_dequantize"}) {
    m.impl(name, torch::autograd::autogradNotImplementedFallback());
  }
}

}  // namespace qatx
