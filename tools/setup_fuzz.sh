#!/usr/bin/env bash
# Installs Clang with its sanitizers and libFuzzer, for `make fuzz`.
set -euo pipefail

if echo 'extern "C" int LLVMFuzzerTestOneInput(const unsigned char*, unsigned long) { return 0; }' |
  clang++ -x c++ -fsanitize=fuzzer,address,undefined -o /dev/null - 2>/dev/null; then
  exit 0
fi
as_root=()
[[ $(id -u) == 0 ]] || as_root=(sudo -n)
echo '==> installing Debian packages: clang and its runtime'
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq update >/dev/null
version=$(apt-cache depends clang | sed -n 's/.*Depends: clang-\([0-9]*\)$/\1/p' | head -1)
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y clang "libclang-rt-$version-dev" >/dev/null
