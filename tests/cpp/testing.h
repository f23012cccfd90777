#pragma once

#include <c10/util/Exception.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <random>
#include <string>
#include <vector>

// What the tests of core, ops, engine and convert share.

namespace qatx::testing {

// Whether `f` throws exactly this kind of error, with `part` in its message.
template <class Error, class F>
::testing::AssertionResult throws(const F& f, const std::string& part) {
  try {
    f();
  } catch (const c10::Error& error) {
    const std::string message = error.what_without_backtrace();
    if (typeid(error) != typeid(Error)) {
      return ::testing::AssertionFailure() << "threw another type of error: " << message;
    }
    if (message.find(part) == std::string::npos) {
      return ::testing::AssertionFailure() << "\"" << part << "\" is not in: " << message;
    }
    return ::testing::AssertionSuccess();
  } catch (const std::exception& error) {
    return ::testing::AssertionFailure() << "threw no c10::Error: " << error.what();
  }
  return ::testing::AssertionFailure() << "threw nothing";
}

#define EXPECT_ERROR(Error, part, ...) \
  EXPECT_TRUE(::qatx::testing::throws<Error>([&] { static_cast<void>(__VA_ARGS__); }, part))

class Random {
 public:
  explicit Random(unsigned seed) : engine_(seed) {}

  int64_t integer(int64_t low, int64_t high) {
    return std::uniform_int_distribution<int64_t>(low, high)(engine_);
  }
  float real(float low, float high) {
    return std::uniform_real_distribution<float>(low, high)(engine_);
  }
  bool chance(double probability) { return std::bernoulli_distribution(probability)(engine_); }

 private:
  std::mt19937 engine_;
};

}  // namespace qatx::testing
