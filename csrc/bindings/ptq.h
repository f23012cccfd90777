#pragma once

#include <pybind11/pybind11.h>

namespace qatx {

// OutputError, and the functions of csrc/qatx/ptq.
void bind_ptq(pybind11::module_& m);

}  // namespace qatx
