#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace qatx::engine {

// Bytes of few different values, such as the codes of weights of 4 or 2 bits, as indices of 4 or 2
// bits into the values: the first in the lowest bits. What lies behind the last one is 0.
struct CodedBytes {
  std::vector<uint8_t> codebook;  // 16 or 4 values, the last ones repeated; empty: no indices
  at::Tensor data;                // uint8, one dimension: indices or, without a codebook, the bytes

  int64_t bits() const { return codebook.empty() ? 8 : codebook.size() == 4 ? 2 : 4; }
  // How much of `data` that many bytes take.
  int64_t data_bytes(int64_t count) const { return (count * bits() + 7) / 8; }
};

// `bytes`: of any integer type of 8 bits, contiguous. The fewest bits that lose nothing.
CodedBytes encode_bytes(const at::Tensor& bytes);

// The reverse: a tensor of these sizes and this dtype. Throws c10::Error unless `coded` holds just
// that.
at::Tensor decode_tensor(const CodedBytes& coded, at::IntArrayRef sizes, at::ScalarType dtype);

// The bytes [begin, begin + count) of what `coded` stands for; `begin` is a multiple of 4.
void decode_bytes(const CodedBytes& coded, int64_t begin, int64_t count, void* out);

}  // namespace qatx::engine
