#pragma once

#include <span>

#include "qatx/kernels/depthwise.h"
#include "qatx/kernels/elementwise.h"
#include "qatx/kernels/fake_quantize.h"
#include "qatx/kernels/gemm.h"
#include "qatx/kernels/isa.h"
#include "qatx/kernels/observe.h"
#include "qatx/kernels/pool.h"
#include "qatx/kernels/rows.h"

namespace qatx::kernels {

// One row of the dispatch table: the best implementation of every kernel for CPUs that have `isa`.
// All rows give the same bits.
struct Kernels {
  Isa isa;
  FakeQuantizeTable fake_quantize;
  FakeQuantizeKernels<double> fake_quantize_f64;
  GemmKernel gemm;
  DepthwiseKernel depthwise;
  ElementwiseKernels elementwise;
  PoolKernels pool;
  RowKernels rows;
  ObserveTable observe;
  ObserveKernels<double> observe_f64;
};

// Every row that this build has, best first, the reference last. Tests run all that detect_isa()
// allows.
std::span<const Kernels> all();

// The first row that max_isa() allows.
const Kernels& active();

}  // namespace qatx::kernels
