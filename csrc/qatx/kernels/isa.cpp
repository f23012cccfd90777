#include "qatx/kernels/isa.h"

#include <cstdlib>
#include <stdexcept>
#include <string>

#include "qatx/kernels/registry.h"

namespace qatx::kernels {
namespace {

constexpr const char* kVariable = "QATX_MAX_ISA";

Isa read_max_isa() {
  const Isa best = all().front().isa < detect_isa() ? all().front().isa : detect_isa();
  const char* value = std::getenv(kVariable);
  if (value == nullptr) return best;
  std::string allowed;
  for (const Isa isa : {Isa::reference, Isa::avx2, Isa::avx512, Isa::vnni}) {
    if (isa > best) break;
    if (name(isa) == value) return isa;
    allowed += allowed.empty() ? "" : ", ";
    allowed += name(isa);
  }
  throw std::runtime_error(std::string(kVariable) + " is \"" + value +
                           "\"; this CPU and this build of qatx allow: " + allowed);
}

}  // namespace

std::string_view name(Isa isa) {
  switch (isa) {
    case Isa::reference:
      return "reference";
    case Isa::avx2:
      return "avx2";
    case Isa::avx512:
      return "avx512";
    case Isa::vnni:
      return "vnni";
  }
  return "unknown";
}

Isa detect_isa() {
#if defined(__x86_64__)
  // Asks the operating system too: registers that it does not save do not count.
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                    __builtin_cpu_supports("f16c");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") &&
                      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
                      __builtin_cpu_supports("avx512vl");
  if (avx512 && __builtin_cpu_supports("avx512vnni")) return Isa::vnni;
  if (avx512) return Isa::avx512;
  if (avx2) return Isa::avx2;
#endif
  return Isa::reference;
}

Isa max_isa() {
  static const Isa isa = read_max_isa();
  return isa;
}

}  // namespace qatx::kernels
