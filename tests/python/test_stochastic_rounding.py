"""The option `seed` of `qatx::fake_quantize`. Its numbers are compared with Philox in exact.py and,
element by element, in test_oracle.py."""

import math
from fractions import Fraction

import exact
import pytest
import torch
from operators import ops
from torch import Tensor

ONE, ZERO = torch.tensor(1.0), torch.tensor(0.0)


def rounded(x: Tensor, seed: int) -> Tensor:
    return ops.fake_quantize(x, ONE, ZERO, -128, 127, seed=torch.tensor(seed))


def test_a_seed_says_everything():
    x = torch.randn(10_000) * 5
    first = rounded(x, 1)
    assert torch.equal(rounded(x, 1), first)
    assert not torch.equal(rounded(x, 2), first)
    assert not torch.equal(rounded(x, 1 + 2**32), first)  # all 64 bits of it count
    assert not torch.equal(rounded(x, -1), first)
    assert torch.equal(ops.fake_quantize(x, ONE, ZERO, -128, 127, seed=torch.tensor([1])), first)


def test_only_the_two_nearest_codes_come_up():
    x = torch.randn(10_000) * 5
    y = rounded(x, 3)
    assert ((y == x.floor()) | (y == x.ceil())).all()
    assert 0.3 < (y == x.round()).double().mean() < 0.95
    codes = torch.arange(-128.0, 128)
    assert torch.equal(rounded(codes, 3), codes)  # what needs no rounding stays


def test_what_saturates_stays_saturated():
    x = torch.tensor([127.5, 1e9, -129.0, math.inf, -math.inf, math.nan])
    y = rounded(x, 3)
    assert y[:5].tolist() == [127, 127, -128, 127, -128]
    assert y[5].isnan()


@pytest.mark.parametrize("fraction", [2.0**-10, 0.1, 0.25, 0.5, 0.9, 1 - 2.0**-10])
@pytest.mark.parametrize("whole", [-100, -1, 0, 60])
def test_the_mean_is_the_value(whole, fraction):
    """Within five standard deviations of the mean of as many coins."""
    count = 100_000
    x = torch.tensor(whole + fraction)
    up = x.item() - math.floor(x.item())
    mean = rounded(x.expand(count).clone(), 11).double().mean().item()
    assert abs(mean - x.item()) <= 5 * math.sqrt(up * (1 - up) / count)


def test_the_mean_over_seeds_is_the_value_of_every_element():
    count, x = 2000, torch.linspace(-3, 3, 33)
    mean = torch.stack([rounded(x, seed) for seed in range(count)]).double().mean(0)
    up = x.double() - x.double().floor()
    assert ((mean - x).abs() <= 5 * (up * (1 - up) / count).sqrt() + 1e-12).all()


def test_neighbours_and_seeds_are_independent():
    count = 100_000
    x = torch.full((count,), 0.5)
    a, b = rounded(x, 1) - 0.5, rounded(x, 2) - 0.5
    bound = 5 * 0.25 / math.sqrt(count)
    assert abs((a * b).mean().item()) < bound
    for distance in (1, 2, 4, 16):
        assert abs((a[distance:] * a[:-distance]).mean().item()) < bound


def test_numbers_belong_to_positions_in_memory():
    x = torch.randn(4, 6, 5, 3)
    whole = rounded(x, 9)
    assert torch.equal(rounded(x[:2], 9), whole[:2])
    assert torch.equal(rounded(x.flatten(), 9), whole.flatten())
    last = x.to(memory_format=torch.channels_last)
    in_memory = last.permute(0, 2, 3, 1)
    assert torch.equal(rounded(last, 9).permute(0, 2, 3, 1), rounded(in_memory, 9))
    assert not torch.equal(rounded(last, 9), whole)
    per_channel = ops.fake_quantize(
        x, torch.ones(6), torch.zeros(6), -128, 127, 1, seed=torch.tensor(9)
    )
    assert torch.equal(per_channel, whole)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize(
    ("axis", "group_size"), [(None, None), (0, None), (1, None), (2, None), (2, 7), (1, 2)]
)
def test_the_backward_uses_the_same_numbers(axis, group_size, dtype):
    """The gradient of the scale has the rounding error in it, so it tells how the backward rounded.
    The values are multiples of 1/64, so that every sum is exact in any order."""
    scale = 0.25
    x = torch.randint(-200, 200, (3, 5, 30)).to(dtype) / 64
    shape = [] if axis is None else [x.shape[axis]]
    if group_size is not None:
        shape = list(x.shape)
        shape[axis] = -(-shape[axis] // group_size)
    real = torch.float64 if dtype == torch.float64 else torch.float32
    scales = torch.full(shape, scale, dtype=real, requires_grad=True)
    zero_points = torch.full(shape, 1.0, dtype=real, requires_grad=True)
    x.requires_grad_()
    y = ops.fake_quantize(
        x, scales, zero_points, -8, 7, axis, group_size=group_size, seed=torch.tensor(5)
    )
    y.backward(torch.ones_like(y))
    steps = y.detach().double() / scale
    scaled = x.detach().double() / scale
    inside = (steps - scaled).abs() < 1
    # The last code inside is also that of values beyond it.
    inside &= (x.grad == 1) | (steps.abs() < 6)
    assert torch.equal(x.grad.double(), inside.double())
    assert 0.1 < inside.double().mean() < 0.9
    total = torch.where(inside, steps - scaled, steps).sum()
    assert scales.grad.double().sum() == total
    assert zero_points.grad.double().sum() == -scale * (~inside).sum()


def test_philox_is_that_of_its_authors():
    """The first answers of Random123's kat_vectors: seed 0, counter 0."""
    words = [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    assert [Fraction(u) for u in exact.philox(0, 4)] == [Fraction(w >> 8, 2**24) for w in words]
