#pragma once

#include <cstdint>

#include "qatx/kernels/ceil_div.h"

namespace qatx::kernels {
namespace {

// A kernel tells the order of its packed weights once, so that packing and its reverse agree:
// Order::visit(sizes..., visit) calls visit(i) for every element of the packed form, one after the
// other, with the index of the weight that stands there, or -1 where zeros fill it up.
template <class Order, class Element, class... Sizes>
struct Packing {
  static void pack(const int8_t* weight, Sizes... sizes, void* packed) {
    auto* out = static_cast<Element*>(packed);
    Order::visit(sizes..., [&](int64_t i) { *out++ = i < 0 ? int8_t{0} : weight[i]; });
  }

  static void unpack(const void* packed, Sizes... sizes, int8_t* weight) {
    const auto* in = static_cast<const Element*>(packed);
    Order::visit(sizes..., [&](int64_t i) {
      if (i >= 0) weight[i] = static_cast<int8_t>(*in);
      ++in;
    });
  }
};

template <class Order>
using GemmPacking = Packing<Order, int8_t, int64_t, int64_t, int64_t>;  // n, segments, k
template <class Order, class Element>
using DepthwisePacking = Packing<Order, Element, int64_t, int64_t>;  // channels, taps

// [block of kBlock columns][segment][group of kDepth bytes]. Within one, Group::visit(at) calls
// at(column, byte) for every element in its order, both counted from the group's first.
template <int64_t kBlock, int64_t kDepth, class Group>
struct BlockOrder {
  static int64_t block_bytes(int64_t segments, int64_t k) {
    return segments * ceil_div(k, kDepth) * kBlock * kDepth;
  }

  template <class Visit>
  static void visit(int64_t n, int64_t segments, int64_t k, const Visit& visit) {
    for (int64_t block = 0; block < n; block += kBlock) {
      for (int64_t s = 0; s < segments; ++s) {
        for (int64_t group = 0; group < k; group += kDepth) {
          Group::visit([&](int64_t column, int64_t byte) {
            const int64_t c = block + column;
            const int64_t i = group + byte;
            visit(c < n && i < k ? (c * segments + s) * k + i : -1);
          });
        }
      }
    }
  }
};

}  // namespace
}  // namespace qatx::kernels
