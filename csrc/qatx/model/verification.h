#pragma once

#include <c10/macros/Export.h>

#include <cstddef>
#include <cstdint>
#include <ostream>
#include <string>
#include <vector>

namespace qatx {

// One quantized value of the trained model, in both models, over all data.
struct C10_EXPORT VerificationRow {
  std::string name;  // path of the fake quantizer
  // Compared; 0 where the converted model does not hold the value in integers.
  int64_t elements = 0;
  int64_t different = 0;  // elements whose codes differ
  int64_t largest = 0;    // the largest difference, in codes
  double sqnr = 0.0;      // signal to noise in decibels, the noise being the difference

  // Codes differ by one at most, in a share of 1e-4 at most: where float sums of the trained model
  // round otherwise than exact integer sums.
  bool rounding_only() const;
  bool operator==(const VerificationRow&) const = default;
};

// What qatx::verify found; << prints it as a table.
struct C10_EXPORT Verification {
  // One for each quantized value, in the order in which the trained model makes them.
  std::vector<VerificationRow> rows;
  double outputs_sqnr = 0.0;  // signal to noise of the models' outputs, in decibels

  // Whether nothing differs but by rounding and what follows from it, and the outputs agree.
  bool ok() const;
  // One sentence.
  std::string verdict() const;
  // A line for each value, and the verdict. Names are folded where a line would be longer than
  // `width` characters; 0: never.
  std::string table(size_t width = 0) const;
  bool operator==(const Verification&) const = default;

 private:
  const VerificationRow* first_different() const;
};
C10_EXPORT std::ostream& operator<<(std::ostream& stream, const Verification& verification);

}  // namespace qatx
