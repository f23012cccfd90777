"""What one call of fake_quantize costs beside its arithmetic: instructions, counted by valgrind.

On 16 elements, against an addition. With gradients the addition is in a C++ autograd function that
does nothing else, because every operator with a backward of its own pays for such a function.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from _results import machine

PROGRAM = Path(__file__).resolve().parents[1] / "build/cmake/bin/call_overhead"
PAIRS = (
    ("without gradients", "fake_quantize", "add", 2.0),
    ("with gradients", "fake_quantize_autograd", "add_autograd", 1.5),
)
FEW, MANY = 500, 1500  # calls; the difference leaves out the start of the program


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("build/bench/call-overhead.json"))
    out: Path = parser.parse_args().out
    if shutil.which("valgrind") is None:
        print("error: valgrind is not installed (Debian: apt-get install valgrind)")
        return 1
    rows, targets = [], []
    for case, ours, reference, at_most in PAIRS:
        counts = {name: instructions_per_call(name) for name in (ours, reference)}
        ratio = counts[ours] / counts[reference]
        for name, count in counts.items():
            rows.append({"case": case, "contender": name, "instructions": count})
        targets.append(
            {"target": f"x {reference}", "case": case, "figure": ratio, "at_most": at_most}
            | {"reached": ratio <= at_most}
        )
        print(
            f"{case}: {ours} {counts[ours]:,.0f} instructions, {reference} "
            f"{counts[reference]:,.0f}: {ratio:.2f}x (at most {at_most})"
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    content = {"machine": machine(()), "rows": rows, "targets": targets}
    out.write_text(json.dumps(content, indent=1) + "\n")
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
