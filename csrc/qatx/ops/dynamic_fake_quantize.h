#pragma once

#include <ATen/core/Tensor.h>
#include <c10/macros/Export.h>

#include <cstdint>
#include <tuple>

namespace qatx {

// Quantizes each row (token) of x by its own range, symmetrically:
//   scale = choose_qparams(-m, m, -quant_max, quant_max, symmetric), m the largest finite magnitude
//   y = fake_quantize(row, scale, 0, -quant_max, quant_max)
// Returns (y, scale).
//
// - x: as in fake_quantize; its rows lie along the last dimension. One without dimensions is a row.
// - quant_max: 1 to 127.
// - scale: float32 (float64 where x is), of the shape of x without its last dimension.
//
// NaN stays NaN, infinities saturate. The gradient of x is that of fake_quantize: straight through
// for what is finite, because no range is left. Throws c10::Error that names the argument.
C10_EXPORT std::tuple<at::Tensor, at::Tensor> dynamic_fake_quantize(const at::Tensor& x,
                                                                    int64_t quant_max);

}  // namespace qatx
