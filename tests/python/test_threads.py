"""The same bits for any number of threads."""

from collections.abc import Callable, Iterator

import pytest
import torch
from operators import ops
from torch import Tensor

SHAPE = (65, 7, 40, 33)  # many tasks, and none of them even
LAYOUTS: dict[str, tuple[Callable[[], Tensor], int | None, int | None]] = {
    "per tensor": (lambda: torch.randn(SHAPE), None, None),
    "runs": (lambda: torch.randn(SHAPE), 1, None),
    "short runs": (lambda: torch.randn(20_001, 5, 6), 0, None),
    "long runs": (lambda: torch.randn(3, 200_001), 0, None),
    "rows": (lambda: torch.randn(SHAPE).to(memory_format=torch.channels_last), 1, None),
    "few rows": (lambda: torch.randn(70, 9001), 1, None),
    "groups": (lambda: torch.randn(301, 2001), 1, 64),
    "long groups": (lambda: torch.randn(31, 20_001), 1, 9000),
    "groups of one": (lambda: torch.randn(301, 2001), 1, 1),
    "grouped rows": (lambda: torch.randn(2001, 301), 0, 64),
    "grouped rows, outer": (lambda: torch.randn(9, 130, 601), 1, 64),
}
DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]


@pytest.fixture(autouse=True)
def _threads_as_before() -> Iterator[None]:
    count = torch.get_num_threads()
    yield
    torch.set_num_threads(count)


def check(run: Callable[[], list[Tensor]]) -> None:
    results = []
    for count in (1, 2, 3, 8):
        torch.set_num_threads(count)
        results.append(run())
    for result in results[1:]:
        assert all(map(torch.equal, result, results[0]))


def qparams(x: Tensor, axis: int | None, group_size: int | None) -> tuple[Tensor, Tensor]:
    shape = [] if axis is None else [x.shape[axis]]
    if axis is not None and group_size is not None:
        shape = list(x.shape)
        shape[axis] = -(-shape[axis] // group_size)
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    return torch.rand(shape, dtype=dtype) / 8 + 0.1, torch.randn(shape, dtype=dtype) * 3


@pytest.mark.parametrize("seed", [None, 5])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_fake_quantize(layout, seed):
    make, axis, group_size = LAYOUTS[layout]
    for dtype in DTYPES if seed is None else DTYPES[:2]:
        x = make().to(dtype)
        grad = torch.randn_like(x)
        args = (x, *qparams(x, axis, group_size), -8, 7, axis, 0.3)
        options = {
            "group_size": group_size,
            "seed": None if seed is None else torch.tensor(seed),
        }
        check(
            lambda args=args, options=options, grad=grad: [
                ops.fake_quantize(*args, **options),
                *ops.fake_quantize_backward(grad, *args, **options),
            ]
        )


@pytest.mark.parametrize("layout", [name for name in LAYOUTS if "group" not in name])
def test_pact_and_moving_average(layout):
    make, axis, _ = LAYOUTS[layout]
    for dtype in (torch.float32, torch.bfloat16):
        x = make().to(dtype)
        grad = torch.randn_like(x)
        alpha, _ = qparams(x, axis, None)
        check(
            lambda x=x, grad=grad, alpha=alpha: [
                ops.pact(x, alpha, 15, axis),
                *ops.pact_backward(grad, x, alpha, axis),
                *ops.moving_average_fake_quantize(x, -alpha, alpha, 0.3, 0, 15, False, axis),
            ]
        )


@pytest.mark.parametrize("layout", LAYOUTS)
def test_integer_codes(layout):
    make, axis, group_size = LAYOUTS[layout]
    x = make()
    scale, zero_point = qparams(x, axis, group_size)

    def run() -> list[Tensor]:
        codes = ops.quantize(x, scale, zero_point, -8, 7, axis, group_size=group_size)
        return [codes, ops.dequantize(codes, scale, zero_point, axis, group_size=group_size)]

    check(run)


def test_many_learned_scales():
    raw, grad = torch.randn(200_003), torch.randn(200_003)
    check(lambda: [ops.learned_scale(raw), ops.learned_scale_backward(grad, raw)])
