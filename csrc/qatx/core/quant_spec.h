#pragma once

#include <c10/macros/Export.h>
#include <c10/util/ArrayRef.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace qatx {

// How a tensor is quantized: everything but the numbers that are learned or measured.
class C10_EXPORT QuantSpec {
 public:
  // - bits: 2 to 8.
  // - with_sign: codes -2^(bits-1) .. 2^(bits-1)-1, otherwise 0 .. 2^bits-1.
  // - symmetric: zero_point is the middle code (0 when signed) and is not learned.
  // - axis: nullopt for one scale per tensor, or the dimension whose every index (channel) has its
  //   own; negative counts from the end.
  // - narrow_range: leaves the lowest code out; 2 bits, signed: ternary (-1, 0, 1).
  // - group_size: scales for groups of that many elements along `axis`, at every index of the other
  //   dimensions; the last group may be smaller.
  //
  // Throws c10::Error where bits or group_size are out of range, or group_size has no axis.
  explicit QuantSpec(int64_t bits = 8, bool with_sign = true, bool symmetric = true,
                     std::optional<int64_t> axis = std::nullopt, bool narrow_range = false,
                     std::optional<int64_t> group_size = std::nullopt);

  int64_t bits() const { return bits_; }
  bool is_signed() const { return signed_; }
  bool symmetric() const { return symmetric_; }
  std::optional<int64_t> axis() const { return axis_; }
  bool narrow_range() const { return narrow_range_; }
  std::optional<int64_t> group_size() const { return group_size_; }
  int64_t quant_min() const;
  int64_t quant_max() const;
  // The shape of the scales of a tensor with these sizes: [] per tensor, [channels], or `sizes`
  // with the number of groups along the axis. Throws where there is no such axis.
  std::vector<int64_t> scale_shape(c10::IntArrayRef sizes) const;
  std::string repr() const;

  bool operator==(const QuantSpec&) const = default;

 private:
  int64_t bits_;
  bool signed_;
  bool symmetric_;
  std::optional<int64_t> axis_;
  bool narrow_range_;
  std::optional<int64_t> group_size_;
};

}  // namespace qatx
