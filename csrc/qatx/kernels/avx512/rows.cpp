#include "qatx/kernels/avx512/lanes.h"

#define QATX_ISA avx512
#include "qatx/kernels/rows.inc"
