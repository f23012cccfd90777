#include "qatx/observers/exact_sum.h"

#include <algorithm>
#include <cmath>

namespace qatx {
namespace {

constexpr int kUnit = -192;
constexpr int64_t kDigit = int64_t{1} << 32;

// Brings all digits but the last into [0, 2^32).
void carry(int64_t* sum) {
  for (int64_t i = 0; i + 1 < kExactSumWords; ++i) {
    sum[i + 1] += sum[i] >> 32;
    sum[i] &= kDigit - 1;
  }
}

}  // namespace

void add_to_exact_sum(int64_t* sum, double value) {
  if (value == 0.0) return;
  int exponent = 0;
  const double fraction = std::frexp(std::min(std::abs(value), 0x1p250), &exponent);
  auto mantissa = static_cast<uint64_t>(std::ldexp(fraction, 53));
  int position = exponent - 53 - kUnit;  // of the mantissa's lowest bit
  if (position < 0) {
    mantissa = position > -64 ? mantissa >> -position : 0;
    position = 0;
  }
  const int64_t sign = value < 0 ? -1 : 1;
  const int shift = position % 32;
  const uint64_t low = (mantissa & (kDigit - 1)) << shift;
  const uint64_t high = (mantissa >> 32) << shift;
  int64_t* digits = sum + position / 32;
  digits[0] += sign * static_cast<int64_t>(low & (kDigit - 1));
  digits[1] += sign * static_cast<int64_t>((low >> 32) + (high & (kDigit - 1)));
  digits[2] += sign * static_cast<int64_t>(high >> 32);
  carry(sum);
}

void merge_exact_sums(int64_t* sum, const int64_t* other) {
  for (int64_t i = 0; i < kExactSumWords; ++i) sum[i] += other[i];
  carry(sum);
}

double value_of_exact_sum(const int64_t* sum) {
  // Of a negative sum, the digits of its magnitude: no cancellation.
  int64_t digits[kExactSumWords];
  const bool negative = sum[kExactSumWords - 1] < 0;
  for (int64_t i = 0; i < kExactSumWords; ++i) digits[i] = negative ? -sum[i] : sum[i];
  carry(digits);
  double value = 0.0;
  for (int i = static_cast<int>(kExactSumWords) - 1; i >= 0; --i) {
    value += std::ldexp(static_cast<double>(digits[i]), 32 * i + kUnit);
  }
  return negative ? -value : value;
}

}  // namespace qatx
