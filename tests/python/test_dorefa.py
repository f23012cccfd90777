"""The operator `qatx::dorefa_weight`."""

import math

import pytest
import torch
from operators import ops


def by_hand(weight: list[list[float]], bits: int, axis: int | None) -> list[list[float]]:
    """Equations 5 and 9 of arXiv 1606.06160, one weight at a time."""
    n = 2**bits - 1
    tanh = [[math.tanh(w) for w in row] for row in weight]
    largest = [[max(abs(t) for row in tanh for t in row)] * len(tanh[0]) for _ in tanh]
    if axis == 0:
        largest = [[max(map(abs, row))] * len(row) for row in tanh]
    elif axis == 1:
        columns = [max(map(abs, column)) for column in zip(*tanh, strict=True)]
        largest = [columns for _ in tanh]
    return [
        [2 * round(n * (t / (2 * m) + 0.5)) / n - 1 for t, m in zip(*rows, strict=True)]
        for rows in zip(tanh, largest, strict=True)
    ]


@pytest.mark.parametrize("axis", [None, 0, 1])
@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equals_the_paper(dtype, bits, axis):
    weight = torch.randn(7, 30, dtype=dtype)
    y = ops.dorefa_weight(weight, bits, axis)
    assert y.dtype == dtype
    expected = torch.tensor(by_hand(weight.tolist(), bits, axis), dtype=torch.float64)
    step = 2 / (2**bits - 1)
    off = (y.double() - expected).abs() / step
    # What lies on a border in float32 may fall to the other side of it.
    assert ((off < 1e-4) | ((off - 1).abs() < 1e-4)).all()
    assert (off < 1e-4).double().mean() > (0.99 if dtype == torch.float32 else 0.9999)
    assert y.abs().max() <= 1
    assert len(y.unique()) == 2**bits or bits > 5


@pytest.mark.parametrize("axis", [None, 0])
def test_zero_weights_have_values_and_gradients(axis):
    weight = torch.zeros(3, 4, requires_grad=True)
    y = ops.dorefa_weight(weight, 4, axis)
    assert y.isfinite().all()
    y.sum().backward()
    assert weight.grad.isfinite().all()


def test_a_negative_axis_counts_from_the_end():
    weight = torch.randn(3, 4, 5)
    assert torch.equal(ops.dorefa_weight(weight, 4, -1), ops.dorefa_weight(weight, 4, 2))


def test_empty_weights():
    assert ops.dorefa_weight(torch.empty(0, 3), 4, 0).shape == (0, 3)


@pytest.mark.parametrize(
    ("args", "error", "message"),
    [
        ((torch.zeros(3).half(), 4), TypeError, "weight must be float32 or float64, got Half"),
        ((torch.zeros(3), 1), ValueError, "bits must be from 2 to 8, got 1"),
        ((torch.zeros(3), 9), ValueError, "bits must be from 2 to 8, got 9"),
        ((torch.zeros(3), 4, 1), ValueError, "axis must be one of the 1 dimensions .*got 1"),
    ],
)
def test_bad_arguments(args, error, message):
    with pytest.raises(error, match=message):
        ops.dorefa_weight(*args)
