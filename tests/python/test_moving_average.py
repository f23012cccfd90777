"""The operator `qatx::moving_average_fake_quantize`."""

import math

import numpy as np
import pytest
import torch
from operators import ops, qparams_dtype
from torch import Tensor

INF, NAN = math.inf, math.nan
DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]
moving_average = ops.moving_average_fake_quantize


def channels_of(x: Tensor, axis: int | None) -> list[np.ndarray]:
    values = x.double().numpy()
    return [values] if axis is None else list(np.moveaxis(values, axis, 0))


def expected_range(
    x: Tensor, running_min: Tensor, running_max: Tensor, constant: float, axis: int | None
) -> tuple[Tensor, Tensor]:
    """One channel after the other; averages in float64, rounded to the dtype of the buffers."""
    result = []
    for end, running in ((np.min, running_min), (np.max, running_max)):
        moved = []
        for channel, old in zip(channels_of(x, axis), running.tolist(), strict=True):
            finite = channel[np.isfinite(channel)]
            if finite.size == 0:
                moved.append(old)
            elif math.isinf(old) or constant == 1:
                moved.append(float(end(finite)))
            else:
                moved.append(old + constant * (float(end(finite)) - old))
        result.append(torch.tensor(moved, dtype=torch.float64).to(running.dtype))
    return result[0], result[1]


def expected_qparams(low: Tensor, high: Tensor, quant_min: int, quant_max: int, symmetric: bool):
    low, high = (t.double().masked_fill(t.isinf(), 0) for t in (low, high))
    low, high = low.clamp_max(0), high.clamp_min(0)
    middle = 0 if quant_min < 0 else (quant_max + 1) // 2
    if symmetric:
        scale = torch.maximum(-low, high) / (quant_max - middle)
        return scale.masked_fill(scale == 0, 1), torch.full_like(scale, middle)
    scale = (high - low) / (quant_max - quant_min)
    scale = scale.masked_fill(scale == 0, 1)
    return scale, None


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("constant", [0.0, 0.01, 0.3, 1.0])
@pytest.mark.parametrize(("quant_min", "quant_max", "symmetric"), [(0, 15, False), (-8, 7, True)])
@pytest.mark.parametrize("axis", [None, 0, 1])
def test_follows_the_range(axis, quant_min, quant_max, symmetric, constant, dtype):
    buffers = qparams_dtype(dtype)
    channels = 1 if axis is None else (4, 6)[axis]
    low = torch.full((channels,), INF, dtype=buffers)
    high = torch.full((channels,), -INF, dtype=buffers)
    for step in range(4):
        x = (torch.randn(4, 6, 9) * (step + 1)).to(dtype)
        x[0, 0, :3] = torch.tensor([NAN, INF, -INF])
        before = low.clone(), high.clone()
        y, new_low, new_high, scale, zero_point = moving_average(
            x, low, high, constant, quant_min, quant_max, symmetric, axis
        )
        assert torch.equal(low, before[0])
        assert torch.equal(high, before[1])
        low, high = expected_range(x, low, high, constant, axis)
        assert torch.equal(new_low, low)
        assert torch.equal(new_high, high)
        expected_scale, middle = expected_qparams(low, high, quant_min, quant_max, symmetric)
        assert torch.equal(scale, expected_scale.to(buffers))
        if middle is not None:
            assert torch.equal(zero_point, middle.to(buffers))
        else:
            ends = quant_min - low.double().clamp_max(0) / scale.double()
            assert torch.equal(zero_point, ends.round().clamp(quant_min, quant_max).to(buffers))
        expected_y = ops.fake_quantize(x, scale, zero_point, quant_min, quant_max, axis)
        torch.testing.assert_close(y, expected_y, rtol=0, atol=0, equal_nan=True)


def test_a_running_range_that_is_no_number_counts_as_none():
    x, nan = torch.tensor([0.0, 15.0]), torch.tensor([NAN])
    _, low, high, _, _ = moving_average(x, nan, nan, 0.01, 0, 15, False)
    assert (low.item(), high.item()) == (0, 15)


def test_zero_lies_in_every_range():
    low, high = torch.tensor([INF]), torch.tensor([-INF])
    y, low, high, scale, zero_point = moving_average(
        torch.tensor([3.0, 15.0]), low, high, 0.1, 0, 15, False
    )
    assert (low.item(), high.item()) == (3, 15)
    assert (scale.item(), zero_point.item()) == (1, 0)
    assert y.tolist() == [3, 15]


@pytest.mark.parametrize(
    "x", [torch.empty(0), torch.tensor([NAN, INF, -INF]), torch.zeros(3)], ids=str
)
def test_without_a_range_there_is_a_scale_all_the_same(x):
    infinite = torch.tensor([INF]), torch.tensor([-INF])
    _, low, high, scale, zero_point = moving_average(x, *infinite, 0.1, 0, 15, False)
    seen = bool(x.isfinite().any())
    assert (low.item(), high.item()) == ((0, 0) if seen else (INF, -INF))
    assert (scale.item(), zero_point.item()) == (1, 0)
    known = torch.tensor([-1.0]), torch.tensor([14.0])
    _, low, high, scale, _ = moving_average(x, *known, 1.0, 0, 15, False)
    assert (low.item(), high.item()) == ((0, 0) if seen else (-1, 14))
    assert scale.item() == 1


def test_huge_and_tiny_ranges_give_a_valid_scale():
    infinite = torch.tensor([INF]), torch.tensor([-INF])
    for x in (torch.tensor([-3e38, 3e38]), torch.tensor([1e-45, -1e-45])):
        y, _, _, scale, _ = moving_average(x, *infinite, 1.0, 0, 15, False)
        assert 2.0**-126 <= scale.item() <= 2.0**126
        assert y.isfinite().all()


@pytest.mark.parametrize("axis", [None, 0])
def test_only_x_has_a_gradient(axis):
    x = (torch.randn(3, 50) * 2).requires_grad_()
    channels = 1 if axis is None else 3
    low, high = torch.full((channels,), -1.0), torch.full((channels,), 1.0)
    outputs = moving_average(x, low, high, 0.0, -8, 7, True, axis)
    assert [t.requires_grad for t in outputs] == [True, False, False, False, False]
    outputs[0].backward(torch.full_like(x, 3.0))
    steps = (x.detach() / (1 / 7)).round()
    assert torch.equal(x.grad, torch.where((steps >= -8) & (steps <= 7), 3.0, 0.0))


X, LOW, HIGH = torch.zeros(2, 3), -torch.ones(1), torch.ones(1)


@pytest.mark.parametrize(
    ("args", "error", "message"),
    [
        ((X.int(), LOW, HIGH, 0.1, 0, 15, False), TypeError, r"x must be float32, .*got Int"),
        ((X, LOW.double(), HIGH, 0.1, 0, 15, False), TypeError, "running_min must be float32, got"),
        (
            (X, LOW, HIGH.int(), 0.1, 0, 15, False),
            TypeError,
            "running_max must be float32, got Int",
        ),
        (
            (X, LOW, torch.ones(3), 0.1, 0, 15, False),
            ValueError,
            r"running_max must have one element .*got shape \[3\]",
        ),
        (
            (X, LOW, HIGH, 0.1, 0, 15, False, 1),
            ValueError,
            r"running_min must have shape \[3\]",
        ),
        ((X, LOW, HIGH, 0.1, 0, 15, False, 2), ValueError, "axis must be one of the 2 dimensions"),
        ((X, LOW, HIGH, 1.5, 0, 15, False), ValueError, "averaging_constant .*0 to 1, got 1.5"),
        ((X, LOW, HIGH, NAN, 0, 15, False), ValueError, "averaging_constant .*0 to 1, got nan"),
        ((X, LOW, HIGH, 0.1, 3, 3, False), ValueError, "quant_min < quant_max .*quant_min=3"),
        ((X, -LOW * 2, HIGH, 0.0, 0, 15, False), ValueError, r"min <= max, got \[2, 1\]"),
    ],
)
def test_bad_arguments(args, error, message):
    with pytest.raises(error, match=message):
        moving_average(*args)
