#include "qatx/engine/memory.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>

#include <algorithm>
#include <cstdlib>

#ifdef __linux__
#include <sys/mman.h>
#endif

namespace qatx::engine {

at::Tensor allocate(int64_t bytes, int64_t least_of_page) {
#ifdef MADV_HUGEPAGE
  constexpr int64_t kPage = int64_t{2} << 20;
  const int64_t pages = (bytes + kPage - least_of_page) / kPage;
  if (pages > 0) {
    // Not aligned_alloc, which need not take a size that is no multiple of the alignment.
    void* memory = nullptr;
    const auto size = static_cast<size_t>(std::max(pages * kPage, bytes));
    if (posix_memalign(&memory, kPage, size) == 0) {
      // Fails where there are none, which changes nothing.
      madvise(memory, static_cast<size_t>(pages * kPage), MADV_HUGEPAGE);
      return at::from_blob(memory, {bytes}, [](void* p) { std::free(p); }, at::kByte);
    }
  }
#endif
  return at::empty({bytes}, at::kByte);
}

}  // namespace qatx::engine
