#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace qatx::engine {

// Uninitialized uint8 [bytes], in pages of 2 MB where the system has such pages for those who ask
// (Linux: /sys/kernel/mm/transparent_hugepage/enabled is "madvise" or "always"). For what is read
// or written in one go: finding pages of 4 KB costs more than reading them. The last page is one of
// them if so many bytes lie in it.
at::Tensor allocate(int64_t bytes, int64_t least_of_page);

}  // namespace qatx::engine
