#pragma once

#include <ATen/core/Tensor.h>
#include <c10/macros/Export.h>

#include <cstdint>
#include <functional>
#include <vector>

#include "qatx/observers/observer.h"

namespace qatx {

// How the processes ("ranks") that calibrate a model together tell each other what they have seen:
// called with a tensor of this rank (int64, one dimension, on the CPU), it returns those of all
// ranks, its own among them, on any device. All ranks call it equally often, with tensors of equal
// sizes; where one is missing it should throw, for example after a time limit. Empty: there are no
// other ranks. docs/cpp.md has one for the process groups of c10d, and one for its stores.
using AllGather = std::function<std::vector<at::Tensor>(const at::Tensor& own)>;

// The sum of the values of all ranks. Throws c10::Error (ValueError) where all_gather did not do
// what it is to do.
C10_EXPORT int64_t sum_over_ranks(const AllGather& all_gather, int64_t value);

// Adds to each observer what those of the other ranks have seen: the same bits on all ranks, and
// those of one that saw everything. All ranks have observers made alike, in the same order. Throws
// c10::Error (ValueError) where all_gather did not do what it is to do; the observers are as they
// were then.
C10_EXPORT void merge_over_ranks(const AllGather& all_gather,
                                 const std::vector<Observer*>& observers);

}  // namespace qatx
