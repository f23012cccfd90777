#pragma once

#include <c10/macros/Export.h>

#include <ostream>

#include "qatx/convert/convert.h"

namespace qatx {

// Multiply-adds of the model for the example inputs, and the share of them that runs in integers (0
// where there are none).
C10_EXPORT int64_t macs(const ConversionReport& report);
C10_EXPORT double integer_share_of_macs(const ConversionReport& report);
// Of all integer weights.
C10_EXPORT int64_t weight_bytes(const ConversionReport& report);

// A table with one line for each operation, and a summary.
C10_EXPORT std::ostream& operator<<(std::ostream& stream, const ConversionReport& report);

}  // namespace qatx
