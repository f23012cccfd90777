#pragma once

#include <cstdint>

namespace qatx::kernels {
namespace {  // compiled for several instruction sets: nothing here may be shared between them

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace
}  // namespace qatx::kernels
