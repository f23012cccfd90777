#include "qatx/library.h"

#include "qatx/kernels/isa.h"

namespace qatx {

const char* version() { return QATX_VERSION; }

std::string isa() { return std::string(kernels::name(kernels::max_isa())); }

}  // namespace qatx
