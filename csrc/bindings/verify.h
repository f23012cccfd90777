#pragma once

#include <pybind11/pybind11.h>

namespace qatx {

// Observer and range_methods.
void bind_verify(pybind11::module_& m);

}  // namespace qatx
