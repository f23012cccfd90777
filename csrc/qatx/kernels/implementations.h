#pragma once

#include "qatx/kernels/registry.h"

// What each instruction set's folder offers to the table in registry.cpp. A folder leaves out a
// family where the next weaker set does as well.

namespace qatx::kernels {

namespace reference {
extern const FakeQuantizeTable fake_quantize;
extern const FakeQuantizeKernels<double> fake_quantize_f64;  // the only one for float64
extern const GemmKernel gemm;
extern const DepthwiseKernel depthwise;
extern const ElementwiseKernels elementwise;
extern const PoolKernels pool;
extern const RowKernels rows;
extern const ObserveTable observe;
extern const ObserveKernels<double> observe_f64;  // the only one for float64
}  // namespace reference

namespace avx2 {
extern const FakeQuantizeTable fake_quantize;
extern const GemmKernel gemm;
extern const DepthwiseKernel depthwise;
extern const ElementwiseKernels elementwise;
extern const PoolKernels pool;
extern const RowKernels rows;
extern const ObserveTable observe;
}  // namespace avx2

namespace avx512 {
extern const FakeQuantizeTable fake_quantize;
extern const ElementwiseKernels elementwise;
extern const PoolKernels pool;
extern const RowKernels rows;
extern const ObserveTable observe;
}  // namespace avx512

namespace vnni {
extern const GemmKernel gemm;
extern const DepthwiseKernel depthwise;
}  // namespace vnni

namespace amx {
extern const GemmKernel gemm;
}  // namespace amx

}  // namespace qatx::kernels
