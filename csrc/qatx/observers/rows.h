#pragma once

#include <ATen/core/Tensor.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#include "qatx/core/quant_spec.h"

namespace qatx {

// The elements of a tensor, so that those that share a scale lie side by side: row r begins at
// offset(r). Rows are numbered as the scales of a tensor whose `axis` comes first (no groups) or
// last (groups).
struct Rows {
  Rows(const at::Tensor& x, const QuantSpec& spec);

  int64_t offset(int64_t row) const {
    return row / per_outer * length + row % per_outer * row_length;
  }
  int64_t size(int64_t row) const {
    return std::min(row_length, length - row % per_outer * row_length);
  }

  at::Tensor elements;  // dense
  int64_t count = 1;
  int64_t per_outer = 1;   // rows that an outer index is cut into
  int64_t length = 0;      // elements of an outer index
  int64_t row_length = 0;  // of all rows but the last of an outer index
};

// A result for each row, as a tensor of the shape of the scales.
at::Tensor in_shape_of_scales(const at::Tensor& rows, const QuantSpec& spec,
                              const std::vector<int64_t>& scale_shape);

}  // namespace qatx
