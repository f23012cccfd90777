#pragma once

#include <cstdint>

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

}  // namespace
}  // namespace qatx::kernels
