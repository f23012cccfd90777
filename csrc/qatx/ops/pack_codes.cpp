#include "qatx/ops/pack_codes.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/constant_pad_nd.h>
#include <torch/library.h>

#include "qatx/ops/operator.h"

namespace qatx {
namespace {

void check_bits(int64_t bits) {
  TORCH_CHECK_VALUE(bits == 2 || bits == 4, "bits must be 2 or 4, got ", bits);
}

// How far each of the codes in a byte is shifted.
at::Tensor shifts(int64_t bits, const at::Tensor& like) {
  return at::arange(0, 8, bits, like.options().dtype(at::kByte));
}

at::Tensor pack(const at::Tensor& codes, int64_t bits) {
  check_bits(bits);
  TORCH_CHECK_TYPE(codes.scalar_type() == at::kChar || codes.scalar_type() == at::kByte,
                   "codes must be int8 or uint8, got ", c10::toString(codes.scalar_type()));
  TORCH_CHECK_VALUE(codes.dim() >= 1, "codes must have at least one dimension, got none");
  const int64_t per_byte = 8 / bits;
  const int64_t missing = (per_byte - codes.size(-1) % per_byte) % per_byte;
  const at::Tensor low = codes.bitwise_and((1 << bits) - 1).to(at::kByte);
  const at::Tensor grouped = at::constant_pad_nd(low, {0, missing}).unflatten(-1, {-1, per_byte});
  return grouped.bitwise_left_shift(shifts(bits, codes)).sum(-1, /*keepdim=*/false, at::kByte);
}

at::Tensor pack_checked(const at::Tensor& codes, int64_t bits) {
  const at::Tensor packed = pack(codes, bits);
  if (codes.numel() > 0) {
    const bool is_signed = codes.scalar_type() == at::kChar;
    const int64_t low = is_signed ? -(1 << (bits - 1)) : 0;
    const int64_t high = low + (1 << bits) - 1;
    const auto smallest = codes.min().item<int64_t>();
    const auto largest = codes.max().item<int64_t>();
    TORCH_CHECK_VALUE(smallest >= low && largest <= high, "codes must lie within ", low, "..", high,
                      " for bits=", bits, ", got ", smallest, "..", largest);
  }
  return packed;
}

at::Tensor unpack(const at::Tensor& packed, int64_t bits, int64_t size, bool is_signed) {
  check_bits(bits);
  TORCH_CHECK_TYPE(packed.scalar_type() == at::kByte, "packed must be uint8, got ",
                   c10::toString(packed.scalar_type()));
  TORCH_CHECK_VALUE(packed.dim() >= 1, "packed must have at least one dimension, got none");
  const int64_t per_byte = 8 / bits;
  TORCH_CHECK_VALUE(size >= 0 && (size + per_byte - 1) / per_byte == packed.size(-1),
                    "size must be one whose codes fill ", packed.size(-1), " bytes, got ", size);
  const at::Tensor fields =
      packed.unsqueeze(-1).bitwise_right_shift(shifts(bits, packed)).bitwise_and((1 << bits) - 1);
  const at::Tensor codes = fields.flatten(-2).narrow(-1, 0, size);
  if (!is_signed) return codes.contiguous();
  const int64_t sign = 1 << (bits - 1);
  return codes.to(at::kChar).bitwise_xor_(sign).sub_(sign);
}

}  // namespace

at::Tensor pack_codes(const at::Tensor& codes, int64_t bits) {
  static const auto op = find_operator<decltype(pack_codes)>("qatx::pack_codes");
  return op.call(codes, bits);
}

at::Tensor unpack_codes(const at::Tensor& packed, int64_t bits, int64_t size, bool is_signed) {
  static const auto op = find_operator<decltype(unpack_codes)>("qatx::unpack_codes");
  return op.call(packed, bits, size, is_signed);
}

TORCH_LIBRARY_FRAGMENT(qatx, m) {
  m.def("pack_codes(Tensor codes, int bits) -> Tensor");
  m.def("unpack_codes(Tensor packed, int bits, int size, bool is_signed) -> Tensor");
}
TORCH_LIBRARY_IMPL(qatx, CPU, m) { m.impl("pack_codes", pack_checked); }
TORCH_LIBRARY_IMPL(qatx, Meta, m) { m.impl("pack_codes", pack); }
TORCH_LIBRARY_IMPL(qatx, CompositeExplicitAutograd, m) { m.impl("unpack_codes", unpack); }

}  // namespace qatx
