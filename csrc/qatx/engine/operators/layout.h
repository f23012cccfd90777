#pragma once

#include <cstdint>
#include <vector>

#include "qatx/engine/operator.h"

namespace qatx::engine {

// The order in which the dimensions of a value lie in memory, the slowest first: N, H, W, C for
// images, otherwise that of their names.
std::vector<size_t> memory_order(size_t dimensions);

// How far apart neighbours along each dimension lie, by dimension.
Shape strides_of(const Shape& shape);

}  // namespace qatx::engine
