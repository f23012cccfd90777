#include "qatx/engine/checksum.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <string_view>

namespace qatx::engine {
namespace {

// Every step is a bijection of the state, so two inputs that differ in one word never agree.
class Hash {
 public:
  void add(uint64_t word) {
    state_ = (state_ ^ word) * 0x9E3779B97F4A7C15u;  // 2^64 divided by the golden ratio
    state_ ^= state_ >> 32;
  }
  void add(int64_t number) { add(static_cast<uint64_t>(number)); }
  void add(double number) { add(std::bit_cast<uint64_t>(number)); }

  void add(std::string_view bytes) {
    add(static_cast<uint64_t>(bytes.size()));
    while (!bytes.empty()) {
      uint64_t word = 0;
      const size_t used = std::min(bytes.size(), sizeof(word));
      std::memcpy(&word, bytes.data(), used);
      add(word);
      bytes.remove_prefix(used);
    }
  }

  template <typename T>
  void add(const std::vector<T>& list) {
    add(static_cast<uint64_t>(list.size()));
    for (const T& item : list) add(item);
  }

  void add(const at::Tensor& tensor) {
    add(static_cast<uint64_t>(tensor.defined()));
    if (!tensor.defined()) return;
    add(static_cast<uint64_t>(tensor.scalar_type()));
    add(tensor.sizes().vec());
    const at::Tensor dense = tensor.cpu().contiguous();
    add(std::string_view(static_cast<const char*>(dense.const_data_ptr()), dense.nbytes()));
  }

  template <typename T>
  void add(const std::map<std::string, T>& attributes) {
    add(static_cast<uint64_t>(attributes.size()));
    for (const auto& [name, attribute] : attributes) {
      add(std::string_view(name));
      add(attribute);
    }
  }

  int64_t value() const { return std::bit_cast<int64_t>(state_); }

 private:
  uint64_t state_ = 0;
};

}  // namespace

int64_t checksum(const Graph& graph) {
  Hash hash;
  hash.add(static_cast<uint64_t>(graph.values.size()));
  for (const Value& value : graph.values) {
    hash.add(std::string_view(value.name));
    hash.add(static_cast<uint64_t>(value.quantized()));
    hash.add(static_cast<uint64_t>(value.dtype == at::kLong));
    // Only where there is one, so that files without masks keep their checksum.
    if (value.dtype == at::kBool) hash.add(std::string_view("mask"));
    if (!value.quantized()) continue;
    hash.add(static_cast<double>(value.qparams->scale));
    hash.add(int64_t{value.qparams->zero_point});
    hash.add(int64_t{value.qparams->quant_min});
    hash.add(int64_t{value.qparams->quant_max});
  }
  hash.add(graph.inputs);
  hash.add(graph.outputs);
  for (const Node& node : graph.nodes) {
    hash.add(std::string_view(node.op));
    hash.add(std::string_view(node.name));
    hash.add(node.inputs);
    hash.add(node.output);
    hash.add(node.ints);
    hash.add(node.floats);
    hash.add(node.tensors);
  }
  return hash.value();
}

}  // namespace qatx::engine
