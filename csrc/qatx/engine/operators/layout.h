#pragma once

#include <c10/core/MemoryFormat.h>

#include <cstdint>
#include <vector>

#include "qatx/engine/operator.h"

namespace qatx::engine {

// Whether a tensor of so many dimensions counts as images (N, C, H, W) or volumes (N, C, D, H, W).
inline bool is_image(size_t dimensions) { return dimensions == 4 || dimensions == 5; }

// The order in which the dimensions of a value lie in memory, the slowest first: N, (D,) H, W, C
// for images, otherwise that of their names.
std::vector<size_t> memory_order(size_t dimensions);

// The one of those that lies innermost, and its size in a value that has dimensions.
size_t innermost(size_t dimensions);
int64_t row_size(at::IntArrayRef sizes);

// The same as PyTorch calls it.
at::MemoryFormat memory_format(size_t dimensions);

// How far apart neighbours along each dimension lie, by dimension.
Shape strides_of(const Shape& shape);

}  // namespace qatx::engine
