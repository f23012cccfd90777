#pragma once

#include <cstdint>

#include "qatx/kernels/ceil_div.h"

namespace qatx::kernels {
namespace {

// A kernel tells the order of its packed weights once, so that packing and its reverse agree:
// Order::visit(sizes..., visit) calls visit(i, count) for every run of kRun elements of the packed
// form, one after the other: the first `count` of them are the weights from index i on, the others
// are zeros, which fill it up.
template <class Order, class Element, class... Sizes>
struct Packing {
  static constexpr int64_t kRun = Order::kRun;

  static void pack(const int8_t* weight, Sizes... sizes, void* packed) {
    auto* out = static_cast<Element*>(packed);
    Order::visit(sizes..., [&](int64_t i, int64_t count) {
      int8_t run[kRun];
      for (int64_t j = 0; j < kRun; ++j) run[j] = j < count ? weight[i + j] : int8_t{0};
      for (int64_t j = 0; j < kRun; ++j) out[j] = run[j];
      out += kRun;
    });
  }

  static void unpack(const void* packed, Sizes... sizes, int8_t* weight) {
    const auto* in = static_cast<const Element*>(packed);
    Order::visit(sizes..., [&](int64_t i, int64_t count) {
      for (int64_t j = 0; j < count; ++j) weight[i + j] = static_cast<int8_t>(in[j]);
      in += kRun;
    });
  }
};

template <class Order>
using GemmPacking = Packing<Order, int8_t, int64_t, int64_t, int64_t>;  // n, segments, k
template <class Order, class Element>
using DepthwisePacking = Packing<Order, Element, int64_t, int64_t>;  // channels, taps

// [block of kBlock columns][segment][group of kDepth bytes]. Within one, Group::visit(at) calls
// at(column, byte) for every run of Group::kRun bytes of a column in its order, both counted from
// the group's first.
template <int64_t kBlock, int64_t kDepth, class Group>
struct BlockOrder {
  static constexpr int64_t kRun = Group::kRun;

  static int64_t block_bytes(int64_t segments, int64_t k) {
    return segments * ceil_div(k, kDepth) * kBlock * kDepth;
  }

  template <class Visit>
  static void visit(int64_t n, int64_t segments, int64_t k, const Visit& visit) {
    for (int64_t block = 0; block < n; block += kBlock) {
      for (int64_t s = 0; s < segments; ++s) {
        for (int64_t group = 0; group < k; group += kDepth) {
          const int64_t stride = segments * k;
          const int64_t first = block * stride + s * k + group;
          // Matrix products pack while a model runs: what is whole is not asked for each run.
          if (block + kBlock <= n && group + kDepth <= k) {
            Group::visit(
                [&](int64_t column, int64_t byte) { visit(first + column * stride + byte, kRun); });
            continue;
          }
          Group::visit([&](int64_t column, int64_t byte) {
            const int64_t left = block + column < n ? k - group - byte : 0;
            visit(first + column * stride + byte, left < 0 ? 0 : left < kRun ? left : kRun);
          });
        }
      }
    }
  }
};

}  // namespace
}  // namespace qatx::kernels
