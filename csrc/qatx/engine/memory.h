#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace qatx::engine {

// Uninitialized uint8 [bytes], in pages of 2 MB as far as it fills them, where the system has such
// pages for those who ask (Linux: /sys/kernel/mm/transparent_hugepage/enabled is "madvise" or
// "always"). For what is read or written in one go: finding pages of 4 KB costs more than reading
// them.
at::Tensor allocate(int64_t bytes);

}  // namespace qatx::engine
