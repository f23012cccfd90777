"""What one call of fake_quantize costs beside its arithmetic: instructions, counted by valgrind.

On 16 elements, against an addition. With gradients the addition is in a C++ autograd function that
does nothing else, because every operator with a backward of its own pays for such a function.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from _results import Instructions, Target, write
from _tables import all_tables
from rich.console import Console

PROGRAM = Path(__file__).resolve().parents[1] / "build/cmake/bin/call_overhead"
SETTING = "instructions of a call"
PAIRS = (
    ("without gradients", "fake_quantize", "add", 2.0),
    ("with gradients", "fake_quantize_autograd", "add_autograd", 1.5),
)
QATX, ADDITION = "fake_quantize", "addition"
FEW, MANY = 500, 1500  # calls; the difference leaves out the start of the program


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("build/bench/call-overhead.json"))
    out: Path = parser.parse_args().out
    if shutil.which("valgrind") is None:
        print("error: valgrind is not installed (Debian: apt-get install valgrind)")
        return 1
    rows: list[Instructions] = []
    targets: list[Target] = []
    for subject, ours, reference, at_most in PAIRS:
        case = f"{SETTING}: {subject}"
        counts = {QATX: instructions_per_call(ours), ADDITION: instructions_per_call(reference)}
        rows += [Instructions(case, name, count) for name, count in counts.items()]
        ratio = counts[QATX] / counts[ADDITION]
        targets.append(
            Target(f"{subject}, at most {at_most:g}x an addition", case, ratio, at_most=at_most)
        )
    write(out, rows, targets, ())
    for table in all_tables(rows, targets):
        Console().print(table.rich())
    print(f"All figures: {out}")
    return 0


def instructions_per_call(case: str) -> float:
    few, many = (instructions(case, calls) for calls in (FEW, MANY))
    return (many - few) / (MANY - FEW)


def instructions(case: str, calls: int) -> int:
    """Of the whole program."""
    # valgrind knows no AVX-512.
    environment = os.environ | {"QATX_MAX_ISA": "avx2", "ATEN_CPU_CAPABILITY": "avx2"}
    command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null"]
    result = subprocess.run(
        [*command, PROGRAM, case, str(calls)],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    (collected,) = re.findall(r"Collected : (\d+)", result.stderr)
    return int(collected)


if __name__ == "__main__":
    sys.exit(main())
