#include "qatx/engine/operators/output.h"

#include <limits>

namespace qatx::engine {

Output::Output(const NodeReader& node) : quantized_(node.output().quantized()) {
  constexpr float kInf = std::numeric_limits<float>::infinity();
  const auto clamp = node.clamp();
  prototype_.clamp_min = clamp ? static_cast<float>(clamp->first) : -kInf;
  prototype_.clamp_max = clamp ? static_cast<float>(clamp->second) : kInf;
  if (quantized_) prototype_.out = *node.output().qparams;
}

void Output::add_residual(const kernels::QParams& residual) {
  has_residual_ = true;
  prototype_.residual_scale = residual.scale;
  prototype_.residual_zero_point = residual.zero_point;
}

kernels::Epilogue Output::to(std::span<const Buffer> inputs, Buffer output, int64_t stride,
                             int64_t offset) const {
  kernels::Epilogue epilogue = prototype_;
  epilogue.out_stride = epilogue.residual_stride = stride;
  if (has_residual_) epilogue.residual = inputs[1].codes() + offset;
  if (quantized_) {
    epilogue.out_u8 = static_cast<uint8_t*>(output.data) + offset;
  } else {
    epilogue.out_f32 = static_cast<float*>(output.data) + offset;
  }
  return epilogue;
}

kernels::Epilogue Output::to_rows(std::span<const Buffer> inputs, Buffer output, int64_t columns,
                                  int64_t first_row) const {
  kernels::Epilogue epilogue = to(inputs, output, columns, first_row * columns);
  if (output.pitch != 0) {
    epilogue.out_u8 = static_cast<uint8_t*>(output.data) + first_row * output.pitch;
    epilogue.out_stride = output.pitch;
  }
  return epilogue;
}

}  // namespace qatx::engine
