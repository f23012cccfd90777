#pragma once

#include <string_view>

namespace qatx::kernels {

// Instruction sets that kernels are written for, weakest first. `vnni` is AVX-512 (F, BW, DQ, VL)
// with VNNI; `amx` is that with AMX's tiles and their 8-bit products.
enum class Isa { reference, avx2, avx512, vnni, amx };

std::string_view name(Isa isa);

// The best set that this CPU and operating system support. Linux gives a process the use of AMX's
// tiles where it asks for it: this does.
Isa detect_isa();

// The best set to use: what is detected, capped by the environment variable QATX_MAX_ISA
// (reference | avx2 | avx512 | vnni | amx), which is read once. Throws std::runtime_error where the
// variable names no set, or one that this CPU or this build lacks.
Isa max_isa();

}  // namespace qatx::kernels
