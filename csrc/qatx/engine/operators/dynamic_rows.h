#pragma once

#include <c10/util/Exception.h>

#include <cstdint>
#include <string>

#include "qatx/engine/node_reader.h"
#include "qatx/engine/operators/float_rows.h"
#include "qatx/kernels/registry.h"

namespace qatx::engine {

// The input of an operator that quantizes each row by the row's own range: what lies last in memory
// (the channels of images, otherwise the last dimension) of float32, or of codes that are
// dequantized first. Attribute quant_max, 1 to 127.
class DynamicRows {
 public:
  explicit DynamicRows(const NodeReader& node)
      : rows_(node), quant_max_(static_cast<int32_t>(node.ints("quant_max", 1, 1, 127)[0])) {}

  // Writes `n` codes and a scale for each row from `begin` to `end`, as kernels::RowKernels has
  // them; those of the first one to the front.
  void quantize(Buffer input, int64_t begin, int64_t end, int64_t n, uint8_t* codes,
                float* scales) const {
    rows_.visit(input, begin, end, n, [&](const float* x, int64_t row, int64_t count) {
      kernels::active().rows.quantize(x, count, n, quant_max_, codes + (row - begin) * n,
                                      scales + (row - begin));
    });
  }

 private:
  FloatRows rows_;
  int32_t quant_max_;
};

}  // namespace qatx::engine
