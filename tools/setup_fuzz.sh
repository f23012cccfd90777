#!/usr/bin/env bash
# Installs Clang with its sanitizers and libFuzzer, for `make fuzz`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if echo 'extern "C" int LLVMFuzzerTestOneInput(const unsigned char*, unsigned long) { return 0; }' |
  clang++ -x c++ -fsanitize=fuzzer,address,undefined -o /dev/null - 2>/dev/null; then
  exit 0
fi
source tools/debian.sh
echo '==> installing Debian packages: clang and its runtime'
apt update
version=$(apt-cache depends clang | sed -n 's/.*Depends: clang-\([0-9]*\)$/\1/p' | head -1)
apt install -y clang "libclang-rt-$version-dev"
