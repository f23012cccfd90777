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

void Recording::add(const std::string& name, const kernels::QParams& qparams, at::IntArrayRef sizes,
                    const Buffer& buffer) {
  at::Tensor value = at::empty(sizes, at::kFloat, memory_format(sizes.size()));
  auto* out = value.mutable_data_ptr<float>();
  const int64_t columns = sizes.empty() ? 1 : row_size(sizes);
  const int64_t pitch = buffer.pitch == 0 ? columns : buffer.pitch;
  for (int64_t i = 0; i < value.numel(); ++i) {
    const uint8_t code = buffer.codes()[i / columns * pitch + i % columns];
    out[i] = static_cast<float>(code - qparams.zero_point) * qparams.scale;
  }
  entries_.push_back({name, qparams.scale, std::move(value)});
}

}  // namespace qatx::engine
