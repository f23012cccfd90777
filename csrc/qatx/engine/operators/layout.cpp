#include "qatx/engine/operators/layout.h"

#include <numeric>

namespace qatx::engine {

std::vector<size_t> memory_order(size_t dimensions) {
  if (dimensions == 4) return {0, 2, 3, 1};
  if (dimensions == 5) return {0, 2, 3, 4, 1};
  std::vector<size_t> order(dimensions);
  std::iota(order.begin(), order.end(), size_t{0});
  return order;
}

size_t innermost(size_t dimensions) { return memory_order(dimensions).back(); }
int64_t row_size(at::IntArrayRef sizes) { return sizes[innermost(sizes.size())]; }

at::MemoryFormat memory_format(size_t dimensions) {
  if (dimensions == 4) return at::MemoryFormat::ChannelsLast;
  return dimensions == 5 ? at::MemoryFormat::ChannelsLast3d : at::MemoryFormat::Contiguous;
}

Shape strides_of(const Shape& shape) {
  Shape strides(shape.size());
  int64_t stride = 1;
  const auto order = memory_order(shape.size());
  for (auto d = order.rbegin(); d != order.rend(); ++d) {
    strides[*d] = stride;
    stride *= shape[*d];
  }
  return strides;
}

}  // namespace qatx::engine
