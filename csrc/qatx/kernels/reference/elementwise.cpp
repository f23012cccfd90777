#define QATX_ISA reference
#include "qatx/kernels/elementwise.inc"
