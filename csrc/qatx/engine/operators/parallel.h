#pragma once

#include <ATen/Parallel.h>

#include <algorithm>
#include <cstdint>

namespace qatx::engine {

// Runs f(begin, end) over [0, rows) on Torch's threads. Work that takes one thread less than some
// microseconds stays on it: waking others costs more.
template <typename F>
void parallel_rows(int64_t rows, int64_t work_per_row, const F& f) {
  constexpr int64_t kLeastWork = 16384;  // bytes moved, or multiply-adds / 32
  const int64_t grain = std::max<int64_t>(1, kLeastWork / std::max<int64_t>(1, work_per_row));
  at::parallel_for(0, rows, grain, f);
}

}  // namespace qatx::engine
