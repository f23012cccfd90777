#include "qatx/engine/codebook.h"

#include <ATen/ops/empty.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <array>
#include <bitset>
#include <cstring>

#include "qatx/kernels/registry.h"

namespace qatx::engine {
namespace {

constexpr size_t kMostValues = 16;
constexpr int64_t kPart = 4096;

// Ascending as signed numbers; empty where there are too many.
std::vector<uint8_t> different_values(const uint8_t* bytes, int64_t count) {
  std::bitset<256> seen;
  for (int64_t begin = 0; begin < count; begin += kPart) {
    const int64_t end = std::min(begin + kPart, count);
    for (int64_t i = begin; i < end; ++i) seen[bytes[i]] = true;
    if (seen.count() > kMostValues) return {};
  }
  std::vector<uint8_t> values;
  for (int value = -128; value < 128; ++value) {
    const auto byte = static_cast<uint8_t>(value);
    if (seen[byte]) values.push_back(byte);
  }
  return values;
}

}  // namespace

CodedBytes encode_bytes(const at::Tensor& bytes) {
  const int64_t count = bytes.numel();
  const auto* from = static_cast<const uint8_t*>(bytes.const_data_ptr());
  CodedBytes coded{different_values(from, count), {}};
  if (coded.codebook.empty()) {
    coded.data = bytes.view({-1}).view(at::kByte);
    return coded;
  }
  std::array<uint8_t, 256> index{};
  for (size_t i = 0; i < coded.codebook.size(); ++i) {
    index[coded.codebook[i]] = static_cast<uint8_t>(i);
  }
  coded.codebook.resize(coded.codebook.size() <= 4 ? 4 : kMostValues, coded.codebook.back());
  const int64_t bits = coded.bits();
  const int64_t size = coded.data_bytes(count);
  coded.data = at::empty({size}, at::kByte);
  auto* out = coded.data.mutable_data_ptr<uint8_t>();
  std::memset(out, 0, static_cast<size_t>(size));
  for (int64_t i = 0; i < count; ++i) {
    const int64_t bit = i * bits;
    out[bit / 8] |= static_cast<uint8_t>(index[from[i]] << (bit % 8));
  }
  return coded;
}

at::Tensor decode_tensor(const CodedBytes& coded, at::IntArrayRef sizes, at::ScalarType dtype) {
  // Counted step by step: the sizes of a hostile file may overflow.
  const int64_t most = coded.data.numel() * 8 / coded.bits();
  int64_t count = 1;
  for (const int64_t size : sizes) {
    TORCH_CHECK_VALUE(size > 0 && size <= most / count, "qatx program: a tensor of sizes ", sizes,
                      " cannot consist of ", coded.data.numel(), " bytes of codes of ",
                      coded.bits(), " bits");
    count *= size;
  }
  TORCH_CHECK_VALUE(coded.data_bytes(count) == coded.data.numel(),
                    "qatx program: a tensor of sizes ", sizes, " must consist of ",
                    coded.data_bytes(count), " bytes of codes of ", coded.bits(), " bits, got ",
                    coded.data.numel());
  at::Tensor tensor = at::empty(sizes, dtype);
  decode_bytes(coded, 0, count, tensor.mutable_data_ptr());
  return tensor;
}

void decode_bytes(const CodedBytes& coded, int64_t begin, int64_t count, void* out) {
  const uint8_t* from = coded.data.const_data_ptr<uint8_t>() + begin * coded.bits() / 8;
  if (coded.codebook.empty()) {
    std::memcpy(out, from, static_cast<size_t>(count));
    return;
  }
  const kernels::ElementwiseKernels& kernel = kernels::active().elementwise;
  const auto look_up = coded.bits() == 4 ? kernel.lookup_4 : kernel.lookup_2;
  look_up(from, static_cast<uint8_t*>(out), count, coded.codebook.data());
}

}  // namespace qatx::engine
