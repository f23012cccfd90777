#include "qatx/core/text.h"

#include <fmt/format.h>

namespace qatx {
namespace {

std::string commas_in(std::string digits) {
  const size_t first = digits.starts_with('-') ? 1 : 0;
  for (size_t i = digits.size(); i > first + 3;) digits.insert(i -= 3, 1, ',');
  return digits;
}

}  // namespace

std::string with_commas(int64_t value) { return commas_in(std::to_string(value)); }

// Not by way of an integer: none may be large enough.
std::string with_commas(double value) { return commas_in(fmt::format("{:.0f}", value)); }

}  // namespace qatx
