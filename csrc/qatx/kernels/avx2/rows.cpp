#include "qatx/kernels/avx2/lanes.h"

#define QATX_ISA avx2
#include "qatx/kernels/rows.inc"
