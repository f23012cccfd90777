"""The measurements of fake_quantize.py; the caller chooses tensors and number of threads."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import torch
from _fake_quantize_contenders import (
    LIMIT,
    QATX,
    Contender,
    limit,
    make_quantizers,
    qatx_learned,
    qatx_options,
)
from _fake_quantize_subject import Subject
from _measure import Budget, OtherPrograms, Times
from _memory import kept_bytes, peak_bytes
from _results import Row, as_rows, compare, with_memory
from torch import Tensor

COPY = "out.copy_(x)"
ADD, ADD_FRESH = "torch.add(g, x, out=out)", "torch.add(g, x)"

SUMS = "sums of gradients"
FIXED_ORDER, ANY_ORDER = "fixed blocks", "one sum a thread"
SUMS_PROGRAM = Path(__file__).parent.parent / "build/cmake/bin/reproducible_sums"

Functions = dict[str, Callable[[], object]]


def peers(
    subject: Subject, dtype: torch.dtype, setting: str, budget: Budget, *, compiled: bool
) -> Iterator[Row]:
    """Everyone's quantizer, as a training step calls it: what it returns is allocated."""
    x = subject.tensor(dtype).requires_grad_()
    gradient = torch.randn_like(x)
    quantizers = make_quantizers(subject, dtype, compiled=compiled)
    check_agreement(quantizers, subject, x)
    contenders = [*quantizers, limit()]
    steps = {contender.name: training_step(contender, x, gradient) for contender in contenders}
    forwards: Functions = {c.name: partial(c.quantize, x) for c in contenders}

    case = f"forward + backward, {setting}: {subject}"
    rows = compare(case, steps, budget, ratio_to=LIMIT)
    for row, contender in zip(rows, contenders, strict=True):
        kept = kept_bytes(contender.quantize, x)
        yield with_memory(row, kept=kept, peak=peak_bytes(steps[contender.name]))
    yield from compare(f"forward, {setting}: {subject}", forwards, budget, ratio_to=LIMIT)


def training_step(contender: Contender, x: Tensor, gradient: Tensor) -> Callable[[], object]:
    """Forward and backward, with gradients of the tensor and of all that the contender learns."""
    inputs = [x, *contender.parameters]
    return lambda: torch.autograd.grad(contender.quantize(x), inputs, gradient)


def check_agreement(quantizers: Sequence[Contender], subject: Subject, x: Tensor) -> None:
    """All have to compute the same, but for one step of rounding (two in bfloat16 arithmetic)."""
    scale = subject.broadcast(subject.scale())
    expected = subject.split_groups(quantizers[0].quantize(x).detach().float())
    for quantizer in quantizers[1:]:
        actual = subject.split_groups(quantizer.quantize(x).detach().float())
        steps = ((actual - expected) / scale).abs().max().item()
        if steps > (1.01 if x.dtype == torch.float32 else 2.0):
            raise AssertionError(
                f"{quantizer.name} is {steps:.2f} steps from {quantizers[0].name} in {subject}"
            )


def kernels(
    subjects: Sequence[Subject], dtype: torch.dtype, setting: str, budget: Budget
) -> Iterator[Row]:
    """Without autograd: one tensor, quantized in several ways, against operators that only move
    memory."""
    x = subjects[0].tensor(dtype)
    gradient, out = torch.randn_like(x), torch.empty_like(x)
    forwards: Functions = {COPY: lambda: out.copy_(x)}
    backwards: Functions = {
        ADD: lambda: torch.add(gradient, x, out=out),
        ADD_FRESH: lambda: torch.add(gradient, x),
    }
    operators = torch.ops.qatx
    for subject in subjects:
        name, options = kernel_name(subject), qatx_options(subject)
        scale = subject.scale()
        zero_point = torch.zeros_like(scale)
        forwards[name] = partial(
            operators.fake_quantize.out, x, scale, zero_point, **options, out=out
        )
        backwards[name] = partial(
            operators.fake_quantize_backward, gradient, x, scale, zero_point, **options
        )
    size = subjects[0].size
    yield from compare(f"fake_quantize.out, {setting}: {size}", forwards, budget, ratio_to=COPY)
    yield from compare(
        f"fake_quantize_backward, {setting}: {size}", backwards, budget, ratio_to=ADD
    )


def kernel_name(subject: Subject) -> str:
    return f"{QATX}, {subject.sharing}"


def granularities(
    subjects: Sequence[Subject], dtype: torch.dtype, setting: str, budget: Budget
) -> Iterator[Row]:
    """One tensor quantized in several ways, as in training."""
    if len(subjects) == 1:
        return
    x = subjects[0].tensor(dtype).requires_grad_()
    gradient = torch.randn_like(x)
    steps = {
        kernel_name(subject): training_step(qatx_learned(subject), x, gradient)
        for subject in subjects
    }
    case = f"granularity, forward + backward, {setting}: {subjects[0].size}"
    yield from compare(case, steps, budget, ratio_to=next(iter(steps)))


def data_types(
    subject: Subject, dtypes: Sequence[torch.dtype], setting: str, budget: Budget
) -> Iterator[Row]:
    """One tensor in several types, as in training."""
    steps: Functions = {}
    for dtype in dtypes:
        x = subject.tensor(dtype).requires_grad_()
        steps[type_name(dtype)] = training_step(qatx_learned(subject), x, torch.randn_like(x))
    case = f"data types, forward + backward, {setting}: {subject}"
    yield from compare(case, steps, budget, ratio_to=type_name(dtypes[0]))


def reproducible_sums(rounds: int) -> Iterator[Row]:
    """The backward kernel with sums that do not depend on the number of threads, and without."""
    others = OtherPrograms()
    program = subprocess.run([SUMS_PROGRAM, str(rounds)], check=True, stdout=subprocess.PIPE)
    load = others.load()
    for case in json.loads(program.stdout):
        threads, shape = case["threads"], "x".join(map(str, case["shape"]))
        times = Times(case["seconds"], load)
        yield from as_rows(f"{SUMS}, {described(threads)}: {shape}", times, ratio_to=ANY_ORDER)


def described(threads: int) -> str:
    return "1 thread" if threads == 1 else f"{threads} threads"


def type_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
