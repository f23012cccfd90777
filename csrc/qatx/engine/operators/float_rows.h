#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <vector>

#include "qatx/engine/node_reader.h"
#include "qatx/engine/operator.h"
#include "qatx/kernels/registry.h"

namespace qatx::engine {

// The input of an operator that computes in float32 along its last dimension: float32, or codes,
// which are dequantized a few rows at a time.
class FloatRows {
 public:
  explicit FloatRows(const NodeReader& node) : qparams_(node.input_value(0).qparams) {}

  // Calls body(x, row, count) with dense rows of `n` floats, for all rows from `begin` to `end`.
  template <class Body>
  void visit(Buffer input, int64_t begin, int64_t end, int64_t n, const Body& body) const {
    if (!qparams_) {
      body(input.floats() + begin * n, begin, end - begin);
      return;
    }
    constexpr int64_t kElements = 4096;  // that stay in the first cache
    const int64_t most = std::max<int64_t>(1, kElements / n);
    std::vector<float> floats(static_cast<size_t>(std::min(most, end - begin) * n));
    for (int64_t row = begin; row < end; row += most) {
      const int64_t count = std::min(most, end - row);
      kernels::active().elementwise.dequantize(input.codes() + row * n, floats.data(), count * n,
                                               *qparams_);
      body(floats.data(), row, count);
    }
  }

 private:
  std::optional<kernels::QParams> qparams_;
};

}  // namespace qatx::engine
