#include "qatx/model/verification.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "qatx/core/text.h"
#include "qatx/model/table.h"

namespace qatx {
namespace {

constexpr double kRoundingShare = 1e-4;
// What differs behind values that differ by rounding agrees at least so well, in decibels.
constexpr double kLeastSqnrBehind = 30.0;
// Outputs that agree less differ for another reason than rounding.
constexpr double kLeastOutputsSqnr = 20.0;

}  // namespace

bool VerificationRow::rounding_only() const {
  return largest <= 1 &&
         static_cast<double>(different) <= kRoundingShare * static_cast<double>(elements);
}

// The first value that differs by more than rounding. Behind values that differ by rounding others
// do, too, and by more than one code where a function is steep.
const VerificationRow* Verification::first_different() const {
  bool rounded = false;
  for (const VerificationRow& row : rows) {
    if (!row.rounding_only() && !(rounded && row.sqnr >= kLeastSqnrBehind)) return &row;
    rounded |= row.different > 0;
  }
  return nullptr;
}

bool Verification::ok() const {
  return first_different() == nullptr && outputs_sqnr >= kLeastOutputsSqnr;
}

std::string Verification::verdict() const {
  int64_t compared = 0;
  int64_t largest = 0;
  double share = 0.0;
  for (const VerificationRow& row : rows) {
    if (row.elements == 0) continue;
    ++compared;
    largest = std::max(largest, row.largest);
    share = std::max(share, static_cast<double>(row.different) / static_cast<double>(row.elements));
  }
  if (compared == 0 && !rows.empty())
    return "Nothing runs in integers: there is nothing to compare.";
  if (const VerificationRow* wrong = first_different()) {
    return fmt::format("Different: first at {}, where {} of {} codes differ, by up to {}.",
                       wrong->name, with_commas(wrong->different), with_commas(wrong->elements),
                       wrong->largest);
  }
  if (!(outputs_sqnr >= kLeastOutputsSqnr)) {
    return fmt::format(
        "Different: no quantized value shows why, but the outputs agree to {:.1f} dB only, less "
        "than {:.0f} dB.",
        outputs_sqnr, kLeastOutputsSqnr);
  }
  if (rows.empty()) {
    return fmt::format(
        "Equal as far as the outputs tell, which agree to {:.1f} dB: no value between layers has a "
        "scale of its own.",
        outputs_sqnr);
  }
  if (share == 0.0) return fmt::format("Equal: no code differs in {} quantized values.", compared);
  return fmt::format(
      "Equal but for rounding: codes differ in {:.4f}% of the elements of a value at most, by {} "
      "at "
      "most.",
      100.0 * share, largest);
}

std::string Verification::table(size_t width) const {
  Table table({{.name = "value", .folds = true},
               {"elements", true},
               {"different codes", true},
               {"largest", true},
               {"SQNR [dB]", true}});
  for (const VerificationRow& row : rows) {
    if (row.elements == 0) {
      table.add_row({row.name, "not in integers", "", "", ""});
      continue;
    }
    table.add_row({row.name, with_commas(row.elements), with_commas(row.different),
                   std::to_string(row.largest),
                   std::isinf(row.sqnr) ? "" : fmt::format("{:.1f}", row.sqnr)});
  }
  return table.text(width) + fmt::format("Outputs: {:.1f} dB. {}\n", outputs_sqnr, verdict());
}

std::ostream& operator<<(std::ostream& stream, const Verification& verification) {
  return stream << verification.table();
}

}  // namespace qatx
