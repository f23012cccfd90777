#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <new>
#include <ostream>
#include <random>
#include <string>
#include <vector>

#include "qatx/kernels/registry.h"

// What the tests of all kernel families share. Results are compared with oracles that are written
// in these tests from the comments in the kernels' headers, bit for bit; the reference row of the
// table is checked like any other.

namespace qatx::kernels {

// The rows of the table that this CPU can run: every test of a family runs once for each.
inline std::vector<const Kernels*> usable_rows() {
  std::vector<const Kernels*> rows;
  for (const Kernels& row : all()) {
    if (row.isa <= detect_isa()) rows.push_back(&row);
  }
  return rows;
}

inline void PrintTo(const Kernels* row, std::ostream* out) { *out << name(row->isa); }

class KernelTest : public ::testing::TestWithParam<const Kernels*> {
 protected:
  const Kernels& row() const { return *GetParam(); }

  int64_t integer(int64_t low, int64_t high) {
    return std::uniform_int_distribution<int64_t>(low, high)(random_);
  }
  float real(float low, float high) {
    return std::uniform_real_distribution<float>(low, high)(random_);
  }
  bool chance(double probability) { return std::bernoulli_distribution(probability)(random_); }

 private:
  std::mt19937 random_{20240607};
};

#define QATX_FOR_ALL_ROWS(suite)                                           \
  INSTANTIATE_TEST_SUITE_P(Isa, suite, ::testing::ValuesIn(usable_rows()), \
                           [](const auto& i) { return std::string(name(i.param->isa)); })

// Elements between two zones that nobody may write to, `shift` bytes behind an address that is
// aligned to 64.
template <class T>
class Buffer {
 public:
  explicit Buffer(int64_t size, int64_t shift = 0)
      : size_(size),
        bytes_(static_cast<size_t>(size) * sizeof(T) + 2 * kZone + static_cast<size_t>(shift)),
        storage_(static_cast<uint8_t*>(::operator new(bytes_, std::align_val_t{64}))),
        data_(reinterpret_cast<T*>(storage_.get() + kZone + shift)) {
    std::memset(storage_.get(), kCanary, bytes_);
  }

  T* data() { return data_; }
  const T* data() const { return data_; }
  int64_t size() const { return size_; }
  T& operator[](int64_t i) { return data_[i]; }
  const T& operator[](int64_t i) const { return data_[i]; }
  T* begin() { return data_; }
  T* end() { return data_ + size_; }

  bool zones_intact() const {
    const auto* first = reinterpret_cast<const uint8_t*>(data_);
    const auto* last = reinterpret_cast<const uint8_t*>(data_ + size_);
    return all_canary(storage_.get(), first) && all_canary(last, storage_.get() + bytes_);
  }
  bool untouched(int64_t i) const {
    const auto* bytes = reinterpret_cast<const uint8_t*>(data_ + i);
    return all_canary(bytes, bytes + sizeof(T));
  }

 private:
  static constexpr size_t kZone = 64;
  static constexpr uint8_t kCanary = 0xa5;

  static bool all_canary(const uint8_t* begin, const uint8_t* end) {
    for (; begin != end; ++begin) {
      if (*begin != kCanary) return false;
    }
    return true;
  }

  struct Delete {
    void operator()(uint8_t* storage) const { ::operator delete(storage, std::align_val_t{64}); }
  };

  int64_t size_;
  size_t bytes_;
  std::unique_ptr<uint8_t[], Delete> storage_;
  T* data_;
};

// Equal bits, or both NaN.
inline ::testing::AssertionResult same(float actual, float expected) {
  if (std::isnan(actual) && std::isnan(expected)) return ::testing::AssertionSuccess();
  if (std::memcmp(&actual, &expected, sizeof(float)) == 0) return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure() << "got " << actual << ", expected " << expected;
}

inline ::testing::AssertionResult same(uint8_t actual, uint8_t expected) {
  if (actual == expected) return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure() << "got " << int{actual} << ", expected " << int{expected};
}

// min(max(rint(y * inv_scale) + zero_point, quant_min), quant_max); NaN becomes the zero point.
inline uint8_t expected_code(float y, const QParams& qparams) {
  if (std::isnan(y)) return static_cast<uint8_t>(qparams.zero_point);
  const float product = y * qparams.inv_scale;
  const float v = std::nearbyint(product) + static_cast<float>(qparams.zero_point);
  if (v <= static_cast<float>(qparams.quant_min)) return static_cast<uint8_t>(qparams.quant_min);
  if (v >= static_cast<float>(qparams.quant_max)) return static_cast<uint8_t>(qparams.quant_max);
  return static_cast<uint8_t>(v);
}

inline float expected_clamp(float y, float low, float high) {
  if (y < low) y = low;
  if (y > high) y = high;
  return y;
}

}  // namespace qatx::kernels
