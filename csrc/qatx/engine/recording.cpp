#include "qatx/engine/recording.h"

#include <ATen/ops/empty.h>

#include "qatx/engine/operators/layout.h"

namespace qatx::engine {
namespace {

thread_local Recording* current = nullptr;

}  // namespace

Recording::Recording() : outer_(current) { current = this; }
Recording::~Recording() { current = outer_; }
Recording* Recording::active() { return current; }

at::Tensor Recording::add(const std::string& name, const kernels::QParams& qparams,
                          at::IntArrayRef sizes) {
  at::Tensor value = at::empty(sizes, at::kFloat, memory_format(sizes.size()));
  entries_.push_back({name, qparams.scale, value});
  return value;
}

void write_floats(const kernels::QParams& qparams, const Buffer& buffer, const at::Tensor& out) {
  auto* values = out.mutable_data_ptr<float>();
  const int64_t columns = out.dim() == 0 ? 1 : row_size(out.sizes());
  const int64_t pitch = buffer.pitch == 0 ? columns : buffer.pitch;
  for (int64_t i = 0; i < out.numel(); ++i) {
    const uint8_t code = buffer.codes()[i / columns * pitch + i % columns];
    values[i] = static_cast<float>(code - qparams.zero_point) * qparams.scale;
  }
}

}  // namespace qatx::engine
