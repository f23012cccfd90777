#!/usr/bin/env bash
# Makes .venv-bench, the environment of the benchmarks: peers, the torch of .venv, and the qatx that `make build` builds.
# Does nothing when nothing has changed. Needs .venv (tools/setup.sh).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

say() { printf '==> %s\n' "$*"; }

# The interpreter and the torch that qatx is built with.
python=$(.venv/bin/python -c 'import os, sys; print(os.path.realpath(sys._base_executable))')
torch=torch==$(.venv/bin/python -c 'import importlib.metadata; print(importlib.metadata.version("torch"))')

# What .venv-bench depends on. The folder is part of it: scripts in a virtual environment hold its path.
stamp=.venv-bench/.qatx-setup
inputs=(benchmarks/requirements.txt tools/setup_bench.sh)
state=$({ echo "$PWD $python $torch" && "$python" -VV && cat "${inputs[@]}"; } | sha256sum)
[[ -f $stamp && $(<"$stamp") == "$state" ]] && exit 0

say "creating .venv-bench with $("$python" --version)"
"$python" -m venv --clear .venv-bench
pip() { .venv-bench/bin/python -m pip --disable-pip-version-check "$@"; }

# Without dependencies: benchmarks/requirements.txt is complete, and torch comes below.
say "installing the peers (benchmarks/requirements.txt)"
pip install -qq --no-deps --only-binary :all: --requirement benchmarks/requirements.txt

say "installing $torch"
pip install -qq --no-deps --only-binary :all: "$torch" 2>/dev/null ||
  pip install --no-deps --only-binary :all: --index-url https://download.pytorch.org/whl/cpu "$torch"
pip check

# qatx itself, from the source tree.
echo "$PWD/python" >"$(.venv-bench/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/qatx.pth"

echo "$state" >"$stamp"
say "set-up of the benchmarks is complete"
