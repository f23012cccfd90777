#include "qatx/kernels/isa.h"

#if defined(__x86_64__) && defined(__linux__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

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
  for (const Isa isa : {Isa::reference, Isa::avx2, Isa::avx512, Isa::vnni, Isa::amx}) {
    if (isa > best) break;
    if (name(isa) == value) return isa;
    allowed += allowed.empty() ? "" : ", ";
    allowed += name(isa);
  }
  throw std::runtime_error(std::string(kVariable) + " is \"" + value +
                           "\"; this CPU and this build of qatx allow: " + allowed);
}

#if defined(__x86_64__) && defined(__linux__)
bool has_amx() {
  unsigned eax = 0;
  unsigned ebx = 0;
  unsigned ecx = 0;
  unsigned edx = 0;
  constexpr unsigned tiles_and_int8 = 1u << 24 | 1u << 25;
  if (!__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx)) return false;
  if ((edx & tiles_and_int8) != tiles_and_int8) return false;
  // The kernel's answer also says whether it saves the tiles.
  constexpr long request_permission = 0x1023;  // ARCH_REQ_XCOMP_PERM
  constexpr long tile_data = 18;               // XFEATURE_XTILEDATA
  return syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
}
#elif defined(__x86_64__)
bool has_amx() { return false; }
#endif

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
    case Isa::amx:
      return "amx";
  }
  return "unknown";
}

Isa detect_isa() {
#if defined(__x86_64__)
  // Asks the operating system too: registers that it does not save do not count.
  __builtin_cpu_init();
#if defined(__clang__)
  const bool f16c = true;  // Clang 14 cannot ask for it; every processor with AVX2 has it
#else
  const bool f16c = __builtin_cpu_supports("f16c");
#endif
  const bool avx2 = f16c && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") &&
                      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
                      __builtin_cpu_supports("avx512vl");
  const bool vnni = avx512 && __builtin_cpu_supports("avx512vnni");
  if (vnni && has_amx()) return Isa::amx;
  if (vnni) return Isa::vnni;
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
