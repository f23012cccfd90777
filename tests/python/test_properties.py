"""Laws that fake quantization obeys for any input, tried on many by hypothesis."""

import math

import exact
import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from operators import ops, qparams_dtype
from torch import Tensor

# The same examples in every run, on a machine of any speed, and nothing left behind.
fixed = settings(derandomize=True, max_examples=60, deadline=None, database=None)

fake_quantize = ops.fake_quantize
DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]

code_ranges = st.sampled_from(
    [(0, 255), (-128, 127), (0, 15), (-8, 7), (-7, 7), (0, 3), (-2, 1), (-1, 1)]
)
# Within what float16 holds at full precision.
scales = st.floats(2.0**-7, 4, width=32)
values = st.floats(-300, 300, width=16) | st.sampled_from([-0.0, math.inf, -math.inf, math.nan])
tensors = st.lists(values, min_size=1, max_size=40)
seeds = st.integers(0, 2**32 - 1)


def random_tensor(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@fixed
@given(tensors, scales, st.floats(-150, 300, width=32), code_ranges, st.sampled_from(DTYPES))
def test_quantizing_twice_changes_nothing(xs, scale, zero_point, codes, dtype):
    x = torch.tensor(xs).to(dtype)
    qparams = [torch.tensor(v, dtype=qparams_dtype(dtype)) for v in (scale, zero_point)]
    once = fake_quantize(x, *qparams, *codes)
    assert exact.same_bits(fake_quantize(once, *qparams, *codes), once)
    assert torch.equal(ops.quantize(once, *qparams, *codes), ops.quantize(x, *qparams, *codes))


@fixed
@given(tensors, scales, code_ranges, st.integers(-60, 60))
def test_a_power_of_two_can_be_moved_from_scale_to_values(xs, scale, codes, exponent):
    x, factor = torch.tensor(xs), 2.0**exponent
    scale, zero_point = torch.tensor(scale), torch.tensor(1.0)
    expected = fake_quantize(x, scale, zero_point, *codes) * factor
    assert exact.same_bits(fake_quantize(x * factor, scale * factor, zero_point, *codes), expected)


@fixed
@given(tensors, scales, code_ranges)
def test_order_is_kept_and_the_error_is_half_a_step(xs, scale, codes):
    x = torch.tensor(xs).nan_to_num(0).sort().values
    scale, zero_point = torch.tensor(scale), torch.tensor(float(codes[0] + codes[1]) // 2)
    y = fake_quantize(x, scale, zero_point, *codes)
    assert (y.diff() >= 0).all()
    low, high = ((c - zero_point) * scale for c in codes)
    error = (y.double() - x.clamp(low, high).double()).abs()
    assert (error <= scale.double() * (0.5 + 2**-14)).all()


@fixed
@given(tensors, scales, st.sampled_from([127, 7, 1]))
def test_symmetric_codes_commute_with_negation(xs, scale, quant_max):
    x, zero_point = torch.tensor(xs), torch.tensor(0.0)
    y = fake_quantize(x, torch.tensor(scale), zero_point, -quant_max, quant_max)
    negated = fake_quantize(-x, torch.tensor(scale), zero_point, -quant_max, quant_max)
    assert exact.same_bits(negated, 0.0 - y)


def gradients(x: Tensor, grad: Tensor, scale: Tensor, zero_point: Tensor, axis, group_size=None):
    """y, dx, dscale and dzero_point."""
    args = (x, scale, zero_point, -8, 7, axis)
    y = fake_quantize(*args, group_size=group_size)
    return [y, *ops.fake_quantize_backward(grad, *args, group_size=group_size)]


@fixed
@given(seeds, st.permutations(range(7)), st.sampled_from([0, 1, 2]))
def test_permuted_channels_give_permuted_results(seed, order, axis):
    shape = [3, 4, 5]
    shape[axis] = 7
    x, grad = random_tensor(seed, *shape), random_tensor(seed + 1, *shape)
    scale, zero_point = random_tensor(seed, 7).abs() / 4 + 0.01, random_tensor(seed, 7) * 5
    results = gradients(x, grad, scale, zero_point, axis)
    index = torch.tensor(order)
    permuted = gradients(
        x.index_select(axis, index),
        grad.index_select(axis, index),
        scale[index],
        zero_point[index],
        axis,
    )
    for i, (actual, expected) in enumerate(zip(permuted, results, strict=True)):
        assert torch.equal(actual, expected.index_select(axis if i < 2 else 0, index))


@fixed
@given(seeds, st.integers(1, 6000), st.sampled_from(DTYPES))
def test_one_channel_is_the_whole_tensor(seed, size, dtype):
    x, grad = random_tensor(seed, 1, size).to(dtype), random_tensor(seed + 1, 1, size).to(dtype)
    scale, zero_point = (torch.tensor([v], dtype=qparams_dtype(dtype)) for v in (0.17, -2.6))
    per_tensor = gradients(x, grad, scale, zero_point, None)
    assert all(map(torch.equal, gradients(x, grad, scale, zero_point, 0), per_tensor))


@fixed
@given(seeds, st.integers(1, 6000), st.integers(0, 3), st.sampled_from(DTYPES))
def test_a_group_of_the_whole_axis_is_a_channel(seed, size, more, dtype):
    x, grad = random_tensor(seed, 3, size).to(dtype), random_tensor(seed + 1, 3, size).to(dtype)
    scale = (random_tensor(seed, 3).abs() / 4 + 0.01).to(qparams_dtype(dtype))
    zero_point = (random_tensor(seed, 3) * 5).to(scale.dtype)
    by_channel = gradients(x, grad, scale, zero_point, 0)
    by_group = gradients(x, grad, scale[:, None], zero_point[:, None], 1, size + more)
    for actual, expected in zip(by_group, by_channel, strict=True):
        assert torch.equal(actual.reshape(expected.shape), expected)


@fixed
@given(seeds, st.integers(2, 40), st.integers(1, 9))
def test_groups_of_one_are_elements(seed, rows, columns):
    x, grad = random_tensor(seed, rows, columns), random_tensor(seed + 1, rows, columns)
    scale = random_tensor(seed, rows, columns).abs() / 4 + 0.01
    zero_point = random_tensor(seed + 2, rows, columns) * 5
    elements = [t.flatten() for t in (x, grad, scale, zero_point)]
    expected = gradients(*elements, 0)
    for axis in (0, 1):
        for actual, e in zip(gradients(x, grad, scale, zero_point, axis, 1), expected, strict=True):
            assert torch.equal(actual.flatten(), e)


def terms(x: Tensor, grad: Tensor, scale: Tensor, zero_point: Tensor, axis: int | None):
    """What the sums of both gradients are of: exact but for one rounding of each."""
    shape = [1] * x.dim()
    if axis is not None:
        shape[axis] = -1
    scale, zero_point = scale.reshape(shape), zero_point.reshape(shape)
    scaled = x * (1 / scale)
    v = scaled.round() + zero_point
    inside = (v >= -8) & (v <= 7)
    steps = v.clamp(-8, 7) - zero_point
    of_scale = grad.double() * torch.where(inside, steps - scaled, steps).double()
    of_zero_point = -(grad * scale).double() * ~inside
    return of_scale, of_zero_point


@pytest.mark.parametrize(
    ("shape", "axis", "additions"),
    [
        ((6, 40_000), None, 260),
        ((6, 5, 9000), 1, 260),
        ((6000, 3), 1, 1024),
        ((600, 300), 1, 1024),
    ],
    ids=str,
)
def test_gradient_sums_do_not_depend_on_how_a_batch_is_cut(shape, axis, additions):
    """The bound of docs/numerics.md, for the whole batch and for a sum over its parts."""
    x, grad = random_tensor(1, *shape), random_tensor(2, *shape) + 0.5
    channels = 1 if axis is None else shape[axis]
    scale, zero_point = torch.full((channels,), 0.15), torch.full((channels,), 1.0)
    others = [d for d in range(len(shape)) if d != axis]
    results = []
    for parts in (1, 2, 3, 6):
        pieces = zip(x.chunk(parts), grad.chunk(parts), strict=True)
        sums = [gradients(a, g, scale, zero_point, axis)[2:] for a, g in pieces]
        results.append([torch.stack(s).double().sum(0) for s in zip(*sums, strict=True)])
    for i, of_one in enumerate(terms(x, grad, scale, zero_point, axis)):
        exact_sum = of_one.sum(others).reshape(channels)
        bound = additions * 2.0**-24 * of_one.abs().sum(others).reshape(channels)
        assert bound.min() > 0
        for result in results:
            assert ((result[i] - exact_sum).abs() <= bound).all()
