#!/usr/bin/env bash
# Makes everything ready to build and test: Debian packages and .venv. Does nothing when nothing has changed.
#   tools/setup.sh [PYTHON]    PYTHON: the interpreter for .venv, 3.10 or newer (default: python3)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=${1:-python3}

say() { printf '==> %s\n' "$*"; }
fail() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

# The torch that the package is built with, "torch==X.Y.Z".
torch_requirement() { sed -n 's/^requires = .*"\(torch==[0-9.]*\)".*/\1/p' pyproject.toml; }

command -v "$python" >/dev/null || fail "$python not found; give another one: make PYTHON=/path/to/python3"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
  fail "$python is $("$python" --version); qatx needs Python 3.10 or newer: make PYTHON=/path/to/python3"

# The interpreter behind a virtual environment: .venv itself may be active.
python=$("$python" -c 'import os, sys; print(os.path.realpath(sys._base_executable))')

# What .venv depends on. The folder is part of it: scripts in a virtual environment hold its path.
stamp=.venv/.qatx-setup
inputs=(requirements/*.txt tools/setup.sh)
state=$({ echo "$PWD $python" && "$python" -VV && cat "${inputs[@]}" && torch_requirement; } | sha256sum)
[[ -f $stamp && $(<"$stamp") == "$state" ]] && exit 0

# ---- Debian packages -------------------------------------------------------------------------------------------------

version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
required=()
command -v g++ >/dev/null || required+=(g++)
"$python" -c 'import ensurepip, venv' 2>/dev/null || required+=("python$version-venv")
"$python" -c 'import pathlib, sys, sysconfig
sys.exit(not pathlib.Path(sysconfig.get_path("include"), "Python.h").exists())' || required+=("python$version-dev")
[[ -e /usr/include/gtest/gtest.h ]] || required+=(libgtest-dev)
optional=()
command -v ccache >/dev/null || optional+=(ccache)
[[ -e /usr/include/zlib.h ]] || optional+=(zlib1g-dev)
[[ -d /usr/share/datasets/fashion-mnist ]] || optional+=(dataset-fashion-mnist)

source tools/debian.sh

if ((${#required[@]} + ${#optional[@]})); then
  command="apt-get install ${required[*]} ${optional[*]}"
  if command -v apt-get >/dev/null && "${as_root[@]}" true 2>/dev/null; then
    say "installing Debian packages: ${required[*]} ${optional[*]}"
    apt update
    ((${#required[@]} == 0)) || apt install -y --no-install-recommends "${required[@]}"
    for package in "${optional[@]}"; do
      apt install -y --no-install-recommends "$package" || say "$package is not to be had; going on without it"
    done
  elif ((${#required[@]})); then
    fail "packages are missing; run as root: $command"
  else
    say "useful, but not needed; run as root: $command"
  fi
fi

# ---- .venv -----------------------------------------------------------------------------------------------------------

say "creating .venv with $("$python" --version)"
"$python" -m venv --clear .venv
pip() { .venv/bin/python -m pip --disable-pip-version-check "$@"; }

say "installing Python packages (requirements/dev.txt)"
pip install -qq --requirement requirements/dev.txt

# The build on PyPI has CUDA in it and is ten times as large.
torch=$(torch_requirement)
say "installing $torch for CPU"
pip install -qq --no-deps "$torch+cpu" 2>/dev/null ||
  pip install --no-deps --index-url https://download.pytorch.org/whl/cpu "$torch+cpu"
pip check

echo "$state" >"$stamp"
say "set-up is complete"
