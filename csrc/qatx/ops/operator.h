#pragma once

#include <ATen/core/dispatch/Dispatcher.h>

namespace qatx {

// Looks a custom operator up, once for each place that calls this.
template <class Signature>
c10::TypedOperatorHandle<Signature> find_operator(const char* name, const char* overload = "") {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, overload).typed<Signature>();
}

}  // namespace qatx
