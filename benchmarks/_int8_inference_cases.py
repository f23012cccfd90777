"""The measurements of int8_inference.py."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import qatx
import torch
from _int8_inference_onnx import (
    ORT_FP32,
    ORT_INT8,
    prepare_ort_dynamic,
    prepare_ort_float,
    prepare_ort_static,
)
from _int8_inference_openvino import (
    OPENVINO_FP32,
    OPENVINO_INT8,
    prepare_openvino_float,
    prepare_openvino_nncf,
    prepare_openvino_onnx,
)
from _int8_inference_subject import Call, Contender, Subject, agreement
from _int8_inference_torch import (
    EAGER,
    OPTIMIZED,
    QATX,
    TORCH_AO,
    prepare_eager,
    prepare_optimized,
    prepare_qatx,
    prepare_torch_ao,
    prepare_torch_ao_dynamic,
)
from _measure import Budget, OtherPrograms, Times, interleaved
from _results import Missing, Row, as_rows
from models import ARCHITECTURES
from torch import Tensor, nn

KERNELS, LIMIT = "kernels, 1 thread", "limit of"
ALL_LAYERS, WINDOWS = "all layers", "all 3x3 layers from 64 channels"
OVERHEAD, OPERATORS = "overhead of an operator", 100
LOADING, LOAD, READ = "loading", "qatx.load", "reading the file"
GEMM_PROGRAM = Path(__file__).parent.parent / "build/cmake/bin/integer_gemm"

Prepare = Callable[[Subject], Contender]

PREPARATIONS: tuple[tuple[str, Prepare], ...] = (
    (QATX, prepare_qatx),
    (EAGER, prepare_eager),
    (OPTIMIZED, prepare_optimized),
    (TORCH_AO, prepare_torch_ao),
    (ORT_FP32, prepare_ort_float),
    (ORT_INT8, prepare_ort_static),
    (OPENVINO_FP32, prepare_openvino_float),
    (OPENVINO_INT8, prepare_openvino_onnx),
    (OPENVINO_INT8, prepare_openvino_nncf),
)
FOR_TRANSFORMERS: tuple[tuple[str, Prepare], ...] = (
    (TORCH_AO, prepare_torch_ao_dynamic),
    (ORT_INT8, prepare_ort_dynamic),
)
CONTENDERS = tuple(dict.fromkeys(name for name, _ in PREPARATIONS))
PEERS_INT8 = (TORCH_AO, ORT_INT8, OPENVINO_INT8)


@dataclass(frozen=True)
class Plan:
    """How each model is measured."""

    batches: Sequence[int]
    threads: Sequence[int]
    budget: Budget
    quick: bool


def measure_model(key: str, plan: Plan) -> list[Row | Missing]:
    """Everyone with one model, in a process of its own; tells what comes next."""
    architecture = ARCHITECTURES[key].quick() if plan.quick else ARCHITECTURES[key]
    folder = Path(tempfile.mkdtemp(prefix="qatx-bench-"))
    try:
        subject = Subject(architecture, folder)
        torch.set_num_threads(max(plan.threads))
        contenders, failures = prepare_all(subject)
        rows: list[Row | Missing] = []
        with torch.inference_mode():
            for threads, batch in product(plan.threads, plan.batches):
                case = case_name(batch, threads, architecture.name)
                say(case)
                rows += measure_case(case, subject, contenders, failures, batch, threads, plan)
            if key == "resnet50" and (folder / "qatx.pt").exists():
                rows += loading(folder / "qatx.pt", architecture.name)
        return rows
    finally:
        shutil.rmtree(folder)


def case_name(batch: int, threads: int, model: str) -> str:
    return f"batch {batch}, {described(threads)}: {model}"


def described(threads: int) -> str:
    return "1 thread" if threads == 1 else f"{threads} threads"


def prepare_all(subject: Subject) -> tuple[list[Contender], dict[str, str]]:
    """Contenders, and why those that cannot handle the model do not; a contender that has several
    ways fails where all of them do."""
    contenders: list[Contender] = []
    failures: dict[str, str] = {}
    for name, prepare in (
        *PREPARATIONS,
        *(FOR_TRANSFORMERS if subject.architecture.transformer else ()),
    ):
        say(f"{subject.architecture.name}: {name} prepares itself")
        try:
            contenders.append(prepare(subject))
        except Exception as error:
            failures[name] = reason(error)
            say(f"{subject.architecture.name}: {name} fails: {failures[name]}")
    return contenders, failures


def measure_case(
    case: str,
    subject: Subject,
    contenders: Sequence[Contender],
    failures: dict[str, str],
    batch: int,
    threads: int,
    plan: Plan,
) -> Iterator[Row | Missing]:
    """All contenders, in turns, after each has shown that it computes the model."""
    torch.set_num_threads(threads)
    x = subject.inputs(batch)
    expected = subject.model(x)
    calls: dict[str, Call] = {}
    opened: dict[str, tuple[Contender, float]] = {}
    failures = dict(failures)
    for contender in contenders:
        try:
            call = contender.open(x, threads)
            sqnr = agreement(contender, call(), expected)
            for _ in range(2):  # TorchScript optimizes in the second and third call
                call()
            sqnr = min(sqnr, agreement(contender, call(), expected))
        except Exception as error:
            failures[contender.name] = reason(error)
            say(f"{case}: {contender.name} fails: {failures[contender.name]}")
            continue
        label = f"{contender.name} {contender.variant or ''}"
        calls[label], opened[label] = call, (contender, sqnr)

    times = interleaved(calls, plan.budget)
    rows: dict[str, Row] = {}
    for row in as_rows(case, times):
        contender, sqnr = opened[row.contender]
        best = rows.get(contender.name)
        if best is None or row.median_ms < best.median_ms:
            rows[contender.name] = replace(
                row,
                contender=contender.name,
                variant=contender.variant,
                sqnr_db=sqnr,
                integer_macs=contender.integer_macs,
            )
    reference = rows.get(QATX)
    for name in CONTENDERS:
        if name not in rows:
            yield Missing(case, name, failures[name])
        elif reference is None:
            yield rows[name]
        else:
            ratio = rows[name].median_ms / reference.median_ms
            yield replace(rows[name], ratio_to=QATX, ratio=ratio)


def reason(error: Exception) -> str:
    """What went wrong, in a line."""
    message = " ".join(str(error).split())
    return f"{type(error).__name__}: {message[:200]}" if message else type(error).__name__


def loading(path: Path, model: str) -> Iterator[Row]:
    """A file that the system has in memory, loaded ready to run, and only read."""
    functions: dict[str, Call] = {LOAD: lambda: qatx.load(path), READ: path.read_bytes}
    times = interleaved(functions, Budget(seconds=1, rounds=5, attempts=2, settle=True))
    yield from as_rows(f"{LOADING}: {model}", times, ratio_to=READ)


class Additions(nn.Module):
    """Operators that have next to nothing to do."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        x = y = self.first(x)
        for _ in range(OPERATORS):
            y = y + x
        return y


def overhead(plan: Plan) -> Iterator[Row | Missing]:
    """One of a chain of additions of eight numbers."""
    x = torch.randn(1, 8, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    model = Additions().eval().requires_grad_(False)
    prepared = qatx.prepare(model)
    qatx.calibrate(prepared, [x])
    converted, report = qatx.convert(prepared, x)
    optimized = torch.jit.optimize_for_inference(torch.jit.freeze(torch.jit.trace(model, x)))
    integers = sum(row.integer for row in report.rows if row.kind == "aten::add")
    for threads in plan.threads:
        case = f"{OVERHEAD}, {described(threads)}: addition of 8 numbers"
        if integers < OPERATORS:
            yield Missing(case, QATX, f"{integers} of {OPERATORS} additions run in integers")
            continue
        torch.set_num_threads(threads)
        with torch.inference_mode():
            calls: dict[str, Call] = {
                QATX: lambda: converted(x),
                OPTIMIZED: lambda: optimized(x),
            }
            for call in calls.values():
                call(), call()
            times = interleaved(calls, replace(plan.budget, seconds=min(1, plan.budget.seconds)))
        each = {name: [s / OPERATORS for s in spent] for name, spent in times.seconds.items()}
        yield from as_rows(case, Times(each, times.other_load), ratio_to=QATX)


def kernels(rounds: int) -> Iterator[Row | Missing]:
    """The integer matrix kernel over the layers of ResNet-50, for the instruction set in use and,
    where that is another one, for AVX-512 VNNI."""
    yield from kernel_rows(rounds, None)
    if qatx._C.isa() == "amx":
        yield from kernel_rows(rounds, "vnni")


def kernel_rows(rounds: int, max_isa: str | None) -> Iterator[Row | Missing]:
    environment = os.environ if max_isa is None else {**os.environ, "QATX_MAX_ISA": max_isa}
    others = OtherPrograms()
    program = subprocess.run(
        [GEMM_PROGRAM, str(rounds)], check=True, stdout=subprocess.PIPE, env=environment
    )
    load = others.load()
    result = json.loads(program.stdout)
    isa: str = result["isa"]
    limit = f"{LIMIT} {isa}"
    # The highest: what slows the instruction down itself does not make the kernel look better.
    peak: float = max(result["peak_macs_per_second"])
    layers = result["layers"]
    windows = [layer for layer in layers if is_window(layer["layer"])]
    for layer in (*layers, together(WINDOWS, windows), together(ALL_LAYERS, layers)):
        case = f"{KERNELS}: {layer['layer']}"
        if peak == 0:
            yield from as_rows(case, Times({isa: layer["seconds"]}, load))
            yield Missing(case, limit, f"{isa} has no instruction that is taken for its peak")
            continue
        times = Times({isa: layer["seconds"], limit: [layer["macs"] / peak]}, load)
        for row in as_rows(case, times, ratio_to=limit):
            assert row.ratio is not None
            yield replace(row, share_of_peak=1 / row.ratio if row.contender == isa else None)


def is_window(layer: str) -> bool:
    found = re.search(r" (\d+)->\d+, 3x3", layer)
    return found is not None and int(found[1]) >= 64


def together(name: str, layers: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Layers as often as the network has them, as one."""
    rounds = len(layers[0]["seconds"])
    return {
        "layer": name,
        "macs": sum(layer["count"] * layer["macs"] for layer in layers),
        "seconds": [
            sum(layer["count"] * layer["seconds"][i] for layer in layers) for i in range(rounds)
        ],
    }


def say(what: str) -> None:
    print(what, flush=True)
