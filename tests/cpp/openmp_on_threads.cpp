// Parallel regions on std::threads, for the thread sanitizer. It does not see how the threads of
// libgomp, which is not compiled with it, wait for each other, and takes all that they do for
// races. With these in the place of libgomp's (hidden: LibTorch keeps its own) it sees through
// at::parallel_for where qatx calls it, so that races within an operator are found, too.

#include <omp.h>

#include <thread>
#include <vector>

namespace {

thread_local int thread_number = 0;
thread_local int thread_count = 1;

}  // namespace

// What LibTorch's own threads do to memory: it is not compiled with the sanitizer either.
extern "C" [[gnu::visibility("default")]] const char* __tsan_default_options() {
  return "ignore_noninstrumented_modules=1";
}

#pragma GCC visibility push(hidden)
extern "C" {

// What GCC makes of `#pragma omp parallel`.
void GOMP_parallel(void (*region)(void*), void* data, unsigned wanted, unsigned /*flags*/) {
  const int count = wanted > 0 ? static_cast<int>(wanted) : omp_get_max_threads();
  const auto run = [=](int number) {
    thread_number = number;
    thread_count = count;
    region(data);
    thread_number = 0;
    thread_count = 1;
  };
  std::vector<std::thread> others;
  for (int number = 1; number < count; ++number) others.emplace_back(run, number);
  run(0);
  for (std::thread& other : others) other.join();
}

int omp_get_thread_num() noexcept { return thread_number; }

int omp_get_num_threads() noexcept { return thread_count; }
}
#pragma GCC visibility pop
