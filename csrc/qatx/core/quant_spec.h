#pragma once

#include <c10/macros/Export.h>

#include <cstdint>
#include <optional>
#include <string>

namespace qatx {

// How a tensor is quantized: everything but the numbers that are learned or measured.
class C10_EXPORT QuantSpec {
 public:
  // - bits: 2 to 8.
  // - with_sign: codes -2^(bits-1) .. 2^(bits-1)-1, otherwise 0 .. 2^bits-1.
  // - symmetric: zero_point is the middle code (0 when signed) and is not learned.
  // - axis: nullopt for one scale per tensor, or the dimension whose every index (channel) has its
  //   own; negative counts from the end.
  //
  // Throws c10::Error where bits is out of range.
  explicit QuantSpec(int64_t bits = 8, bool with_sign = true, bool symmetric = true,
                     std::optional<int64_t> axis = std::nullopt);

  int64_t bits() const { return bits_; }
  bool is_signed() const { return signed_; }
  bool symmetric() const { return symmetric_; }
  std::optional<int64_t> axis() const { return axis_; }
  int64_t quant_min() const;
  int64_t quant_max() const;
  std::string repr() const;

  bool operator==(const QuantSpec&) const = default;

 private:
  int64_t bits_;
  bool signed_;
  bool symmetric_;
  std::optional<int64_t> axis_;
};

}  // namespace qatx
