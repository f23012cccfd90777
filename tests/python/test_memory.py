"""What operators keep for the backward, and what they allocate on the way."""

from collections.abc import Callable

import pytest
import torch
from operators import CALLS, tensors
from quantizers import MAKERS, SHAPE, calibrated
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

WEIGHT_LAYOUTS = {
    "per tensor": (lambda: torch.randn(64, 8, 16, 16), None),
    "runs": (lambda: torch.randn(64, 8, 16, 16), 1),
    "rows": (lambda: torch.randn(8, 64, 16, 16).to(memory_format=torch.channels_last), 1),
    "last axis": (lambda: torch.randn(2048, 64), 1),
}
OPERATORS = ("fake_quantize", "groups", "pass_through", "pact", "moving_average")
CASES = [
    (name, layout, dtype)
    for name in OPERATORS
    for layout in WEIGHT_LAYOUTS
    for dtype in (torch.float32, torch.bfloat16, torch.float64)
    # Groups of two need as many scales as half of x has elements; test_groups has larger ones.
    if name != "groups"
]


def large_allocations(x: Tensor, run: Callable[[], object]) -> int:
    """How many blocks of at least half of x's size are allocated on the way."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as trace:
        result = run()
    del result
    events = trace.profiler.kineto_results.events()
    return sum(event.name() == "[memory]" and event.nbytes() >= x.nbytes // 2 for event in events)


def saved_by(x: Tensor, run: Callable[[], Tensor]) -> tuple[Tensor, list[Tensor]]:
    """The result, and what is kept for the backward besides x itself."""
    saved: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        y = run()
    assert sum(t.data_ptr() == x.data_ptr() for t in saved) == 1
    return y, [t for t in saved if t.data_ptr() != x.data_ptr()]


def check(x: Tensor, run: Callable[[], Tensor]) -> None:
    assert large_allocations(x, run) == 1  # y
    y, others = saved_by(x, run)
    assert sum(t.nbytes for t in others) <= x.nbytes // 8
    grad = torch.ones_like(y)
    assert large_allocations(x, lambda: torch.autograd.grad(y, x, grad)) == 1  # dx


def test_allocations_are_counted():
    """The counter itself, on something that needs a temporary."""
    x = torch.randn(1000)
    assert large_allocations(x, lambda: x + 1) == 1
    assert large_allocations(x, lambda: (x + 1) * 2) == 2


@pytest.mark.parametrize(("name", "layout", "dtype"), CASES)
def test_input_and_output_are_all(name, layout, dtype):
    make, axis = WEIGHT_LAYOUTS[layout]
    x = make().to(dtype).requires_grad_()
    call = CALLS[name](x, axis)
    check(x, lambda: tensors(call())[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("axis", [0, 1])
def test_groups(axis, dtype):
    x = torch.randn(256, 512).to(dtype).requires_grad_()
    shape = [256, 512]
    shape[axis] //= 64
    scale, zero_point = torch.full(shape, 0.1), torch.zeros(shape)
    check(
        x,
        lambda: torch.ops.qatx.fake_quantize(
            x, scale, zero_point, -8, 7, axis, group_size=64, pass_through=axis == 0
        ),
    )


@pytest.mark.parametrize("name", ["quantize", "dequantize"])
def test_codes_need_no_temporary(name):
    x = torch.randn(64, 8, 16, 16)
    call = CALLS[name](x, 1)
    smaller = torch.empty(x.numel(), dtype=torch.int8)  # the codes
    assert large_allocations(smaller, call) == 1


def test_out_needs_no_memory():
    x = torch.randn(64, 8, 16, 16)
    call = CALLS["out"](x, 1)
    assert large_allocations(x, call) == 0


@pytest.mark.parametrize(
    "kind", [kind for kind in MAKERS if kind not in ("dorefa", "groups", "stochastic")]
)
def test_modules_keep_the_input_only(kind):
    module = calibrated(MAKERS[kind]())
    # As many channels as calibration saw, and many elements of each.
    x = torch.randn(SHAPE[0], 50_000, requires_grad=True)
    check(x, lambda: module(x))
