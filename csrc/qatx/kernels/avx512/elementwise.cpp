#define QATX_ISA avx512
#include "qatx/kernels/elementwise.inc"
