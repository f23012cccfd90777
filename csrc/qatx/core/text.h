#pragma once

#include <cstdint>
#include <string>

namespace qatx {

// 1234567 as 1,234,567.
std::string with_commas(int64_t value);
// The same, rounded.
std::string with_commas(double value);

}  // namespace qatx
