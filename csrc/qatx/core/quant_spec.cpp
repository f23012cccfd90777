#include "qatx/core/quant_spec.h"

#include <c10/util/Exception.h>
#include <fmt/format.h>

namespace qatx {

QuantSpec::QuantSpec(int64_t bits, bool with_sign, bool symmetric, std::optional<int64_t> axis)
    : bits_(bits), signed_(with_sign), symmetric_(symmetric), axis_(axis) {
  TORCH_CHECK_VALUE(bits >= 2 && bits <= 8, "QuantSpec: bits must be from 2 to 8, got ", bits);
}

int64_t QuantSpec::quant_min() const { return signed_ ? -(int64_t{1} << (bits_ - 1)) : 0; }

int64_t QuantSpec::quant_max() const {
  return signed_ ? (int64_t{1} << (bits_ - 1)) - 1 : (int64_t{1} << bits_) - 1;
}

std::string QuantSpec::repr() const {
  return fmt::format("QuantSpec(bits={}, signed={}, symmetric={}, axis={})", bits_,
                     signed_ ? "True" : "False", symmetric_ ? "True" : "False",
                     axis_ ? std::to_string(*axis_) : "None");
}

}  // namespace qatx
