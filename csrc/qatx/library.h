#pragma once

#include <c10/macros/Export.h>

#include <string>

namespace qatx {

// The version of the library that is loaded, "major.minor.patch".
C10_EXPORT const char* version();

// The instruction set whose kernels run: reference, avx2, avx512, vnni or amx. The environment
// variable QATX_MAX_ISA caps it; throws std::runtime_error where that names none that this machine
// has.
C10_EXPORT std::string isa();

namespace detail {
// A linker drops a shared library none of whose symbols is named, and with it the operators that it
// registers. This one names it in every program that includes <qatx/qatx.h>.
[[maybe_unused]] inline const char* const anchor = version();
}  // namespace detail

}  // namespace qatx
