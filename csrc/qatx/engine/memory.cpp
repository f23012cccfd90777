#include "qatx/engine/memory.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>

#include <cstdlib>

#ifdef __linux__
#include <sys/mman.h>
#endif

namespace qatx::engine {

at::Tensor allocate(int64_t bytes) {
#ifdef MADV_HUGEPAGE
  constexpr int64_t kPage = int64_t{2} << 20;
  if (bytes >= kPage) {
    const auto size = static_cast<size_t>((bytes + 63) / 64 * 64);
    if (void* memory = std::aligned_alloc(kPage, size)) {
      // Fails where there are none, which changes nothing.
      madvise(memory, static_cast<size_t>(bytes / kPage * kPage), MADV_HUGEPAGE);
      return at::from_blob(memory, {bytes}, [](void* p) { std::free(p); }, at::kByte);
    }
  }
#endif
  return at::empty({bytes}, at::kByte);
}

}  // namespace qatx::engine
