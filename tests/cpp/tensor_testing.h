#pragma once

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>

#include <cstring>

#include "testing.h"

// What the tests that handle tensors share.

namespace qatx::testing {

inline at::Tensor floats(const std::vector<float>& values) {
  at::Tensor t = at::empty({static_cast<int64_t>(values.size())}, at::kFloat);
  if (values.empty()) return t;  // memcpy takes no null pointers, not even for 0 bytes
  std::memcpy(t.mutable_data_ptr(), values.data(), values.size() * sizeof(float));
  return t;
}

inline at::Tensor scalar(float value) { return floats({value}).squeeze(0); }

inline at::Tensor random_floats(Random& random, at::IntArrayRef sizes, float low, float high) {
  at::Tensor t = at::empty(sizes, at::kFloat);
  auto* values = t.mutable_data_ptr<float>();
  for (int64_t i = 0; i < t.numel(); ++i) values[i] = random.real(low, high);
  return t;
}

// Same sizes and the same bits in every element, however they lie in memory; all NaN are alike.
inline ::testing::AssertionResult same_bits(const at::Tensor& actual, const at::Tensor& expected) {
  if (actual.scalar_type() != at::kFloat || expected.scalar_type() != at::kFloat ||
      actual.sizes() != expected.sizes()) {
    return ::testing::AssertionFailure()
           << "got " << actual.scalar_type() << actual.sizes() << ", expected "
           << expected.scalar_type() << expected.sizes();
  }
  const at::Tensor a = actual.contiguous();
  const at::Tensor e = expected.contiguous();
  for (int64_t i = 0; i < a.numel(); ++i) {
    const float& x = a.const_data_ptr<float>()[i];
    const float& y = e.const_data_ptr<float>()[i];
    if (std::memcmp(&x, &y, sizeof(float)) != 0 && !(x != x && y != y)) {
      return ::testing::AssertionFailure() << "element " << i << " of a tensor of sizes "
                                           << a.sizes() << " is " << x << ", expected " << y;
    }
  }
  return ::testing::AssertionSuccess();
}

// Sets Torch's number of threads for as long as it lives.
class Threads {
 public:
  explicit Threads(int count) : before_(at::get_num_threads()) { at::set_num_threads(count); }
  ~Threads() { at::set_num_threads(before_); }
  Threads(const Threads&) = delete;
  Threads& operator=(const Threads&) = delete;

 private:
  int before_;
};

}  // namespace qatx::testing
