#include "qatx/engine/memory.h"

#include <gtest/gtest.h>

#include <cstdint>

namespace qatx::engine {
namespace {

constexpr int64_t kPage = int64_t{2} << 20;

TEST(MemoryTest, AllOfItCanBeWritten) {
  for (const int64_t bytes : {int64_t{0}, int64_t{1}, kPage / 2, kPage - 1, kPage, 3 * kPage + 5}) {
    for (const int64_t least_of_page : {int64_t{1}, kPage / 4, kPage}) {
      at::Tensor memory = allocate(bytes, least_of_page);
      EXPECT_EQ(memory.scalar_type(), at::kByte);
      EXPECT_EQ(memory.sizes(), at::IntArrayRef({bytes}));
      EXPECT_EQ(reinterpret_cast<uintptr_t>(memory.const_data_ptr()) % 64, 0u);
      memory.fill_(7);
      EXPECT_TRUE(memory.eq(7).all().item<bool>());
    }
  }
}

#ifdef __linux__
TEST(MemoryTest, WholePagesBeginWithOne) {
  const auto is_aligned = [](int64_t bytes, int64_t least_of_page) {
    const at::Tensor memory = allocate(bytes, least_of_page);
    return reinterpret_cast<uintptr_t>(memory.const_data_ptr()) % kPage == 0;
  };
  EXPECT_TRUE(is_aligned(kPage, kPage));
  EXPECT_TRUE(is_aligned(kPage / 2, kPage / 2));
  EXPECT_TRUE(is_aligned(5 * kPage - 1, kPage));
}
#endif

}  // namespace
}  // namespace qatx::engine
