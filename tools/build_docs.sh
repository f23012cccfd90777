#!/usr/bin/env bash
# The reference of the C++ interface, into build/docs/html; any warning is an error.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if ! command -v doxygen >/dev/null; then
  source tools/debian.sh
  echo '==> installing Debian packages: doxygen'
  apt update
  apt install -y --no-install-recommends doxygen
fi
# The headers that are installed, as CMakeLists.txt lists them.
headers=$(sed -n '/^set(QATX_PUBLIC_HEADERS/,/)/p' CMakeLists.txt | grep -o '[a-z_0-9/]*\.h' | sed 's|^|csrc/qatx/|')
mkdir -p build/docs
{ cat docs/Doxyfile && echo "INPUT =" $headers; } | doxygen -
echo "==> build/docs/html/index.html"
