#include "qatx/kernels/registry.h"

#include "qatx/kernels/implementations.h"

namespace qatx::kernels {

std::span<const Kernels> all() {
  // Made at the first call: objects of other files need not be initialised before.
  static const Kernels rows[] = {
#ifdef QATX_HAVE_AVX512
      {Isa::amx, avx512::fake_quantize, reference::fake_quantize_f64, amx::gemm, vnni::depthwise,
       avx512::elementwise, avx512::pool, avx512::rows, avx512::observe, reference::observe_f64},
      {Isa::vnni, avx512::fake_quantize, reference::fake_quantize_f64, vnni::gemm, vnni::depthwise,
       avx512::elementwise, avx512::pool, avx512::rows, avx512::observe, reference::observe_f64},
      {Isa::avx512, avx512::fake_quantize, reference::fake_quantize_f64, avx2::gemm,
       avx2::depthwise, avx512::elementwise, avx512::pool, avx512::rows, avx512::observe,
       reference::observe_f64},
#endif
#ifdef QATX_HAVE_AVX2
      {Isa::avx2, avx2::fake_quantize, reference::fake_quantize_f64, avx2::gemm, avx2::depthwise,
       avx2::elementwise, avx2::pool, avx2::rows, avx2::observe, reference::observe_f64},
#endif
      {Isa::reference, reference::fake_quantize, reference::fake_quantize_f64, reference::gemm,
       reference::depthwise, reference::elementwise, reference::pool, reference::rows,
       reference::observe, reference::observe_f64},
  };
  return rows;
}

const Kernels& active() {
  static const Kernels& row = []() -> const Kernels& {
    const Isa isa = max_isa();
    for (const Kernels& candidate : all()) {
      if (candidate.isa <= isa) return candidate;
    }
    return all().back();
  }();
  return row;
}

}  // namespace qatx::kernels
