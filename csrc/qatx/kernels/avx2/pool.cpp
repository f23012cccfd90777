#define QATX_ISA avx2
#include "qatx/kernels/pool.inc"
