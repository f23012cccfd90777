// That the thread sanitizer sees what the threads of a parallel region do (openmp_on_threads.cpp):
// if it did not, all other tests would pass under it, races or not.

#include <ATen/Parallel.h>

#include <cstdlib>

#include "tensor_testing.h"

namespace qatx {
namespace {

constexpr int kReported = 66;  // how a program ends that has had reports

int run_with(bool race) {
  const testing::Threads two(2);
  int64_t counts[2] = {};
  at::parallel_for(0, 2, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) ++counts[race ? 0 : i];
  });
  return counts[0] + counts[1] > 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

TEST(ThreadSanitizerDeathTest, SeesRacesWithinAParallelRegion) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(std::exit(run_with(/*race=*/true)), ::testing::ExitedWithCode(kReported), "");
  EXPECT_EXIT(std::exit(run_with(/*race=*/false)), ::testing::ExitedWithCode(EXIT_SUCCESS), "");
}

}  // namespace
}  // namespace qatx
