#pragma once

#include <cstdint>

namespace qatx {

// A sum of doubles without rounding: a wide integer in units of 2^-192. So numbers may be added in
// any order, and sums of parts may be added up, with the same result. Numbers are cut off below the
// unit, and at a magnitude of 2^250.
//
// The integer lies in kExactSumWords words: digits of 32 bits, the lowest first, of which only the
// last has a sign.
inline constexpr int64_t kExactSumWords = 16;

void add_to_exact_sum(int64_t* sum, double value);
void merge_exact_sums(int64_t* sum, const int64_t* other);
double value_of_exact_sum(const int64_t* sum);

}  // namespace qatx
