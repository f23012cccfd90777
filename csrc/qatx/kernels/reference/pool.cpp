#define QATX_ISA reference
#include "qatx/kernels/pool.inc"
