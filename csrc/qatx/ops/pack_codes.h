#pragma once

#include <ATen/core/Tensor.h>
#include <c10/macros/Export.h>

#include <cstdint>

namespace qatx {

// Two 4-bit or four 2-bit codes in a byte, along the last dimension: the first in the lowest bits,
// two's complement where signed, the last byte filled up with 0.
//
// - codes: int8 or uint8, at least one dimension, each within the codes of `bits` bits (-8..7 or
//   0..15, -2..1 or 0..3).
// - bits: 4 or 2.
//
// Returns uint8 with ceil(size * bits / 8) in the last dimension. Throws c10::Error that names the
// argument.
C10_EXPORT at::Tensor pack_codes(const at::Tensor& codes, int64_t bits);

// The reverse. size: of the last dimension of the codes; is_signed: int8, otherwise uint8.
C10_EXPORT at::Tensor unpack_codes(const at::Tensor& packed, int64_t bits, int64_t size,
                                   bool is_signed);

}  // namespace qatx
