"""Observers and range methods as Python sees them; tests/cpp/observers has the oracles."""

import copy
import pickle
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from qatx import QuantSpec
from qatx._C import Observer, range_methods
from qatx._ranges import RangeChoice, RangeMethod

ASYMMETRIC = QuantSpec(bits=8, signed=False, symmetric=False)
SYMMETRIC = QuantSpec(bits=8)


def observed(*batches: torch.Tensor, spec: QuantSpec = ASYMMETRIC) -> Observer:
    observer = Observer(spec)
    for batch in batches:
        observer.observe(batch)
    return observer


def choose(observer: Observer, method: str, spec: QuantSpec = ASYMMETRIC, **options) -> RangeChoice:
    return RangeChoice(*observer.choose(spec, method, **options))


def test_there_is_one_list_of_methods():
    assert list(get_args(RangeMethod)) == range_methods()


FLOATS = st.floats(width=32)  # NaN, infinities and denormals too


@settings(max_examples=200, deadline=None)
@given(st.lists(st.lists(FLOATS, max_size=40), max_size=6), st.randoms(use_true_random=False))
def test_only_the_values_matter(batches, random):
    tensors = [torch.tensor(batch, dtype=torch.float32) for batch in batches]
    expected = observed(*tensors)
    everything = [value for batch in batches for value in batch]
    random.shuffle(everything)
    shuffled = observed(torch.tensor(everything, dtype=torch.float32))
    for name in ("histogram", "min", "max", "count", "nan_count", "inf_count", "bin_width"):
        assert torch.equal(getattr(shuffled, name), getattr(expected, name)), name
    random.shuffle(tensors)
    half = len(tensors) // 2
    merged = observed(*tensors[:half])
    merged.merge(observed(*tensors[half:]))
    assert torch.equal(merged.state, expected.state)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1))
def test_every_value_is_in_its_bin(values):
    x = np.array(values, dtype=np.float64)
    observer = observed(torch.tensor(values, dtype=torch.float32))
    width, counts = observer.bin_width.item(), observer.histogram[0].numpy()
    expected = np.zeros_like(counts)
    magnitude = np.floor(np.abs(x) / width).astype(np.int64)
    np.add.at(
        expected, np.where(x >= 0, observer.bins + magnitude, observer.bins - 1 - magnitude), 1
    )
    assert np.array_equal(counts, expected)
    largest = np.abs(x).max()
    assert largest < observer.bins * width
    assert largest >= observer.bins * width / 2 or width == 2.0**-126


def test_statistics_are_those_of_numpy():
    x = torch.randn(3, 100_000) * torch.tensor([[1.0], [1e-3], [1e4]])
    observer = observed(*x)
    assert observer.min.item() == x.min().item()
    assert observer.max.item() == x.max().item()
    assert observer.count.item() == x.numel()
    assert observer.mean_magnitude.item() == pytest.approx(x.double().abs().mean().item(), rel=1e-6)


@pytest.mark.parametrize("percentile", [75.0, 99.0, 99.99])
def test_percentile_is_that_of_numpy(percentile):
    x = torch.randn(200_000) + 0.3
    choice = choose(observed(x), "percentile", percentile=percentile)
    width = observed(x).bin_width.item()
    low, high = np.percentile(x.numpy(), [100 - percentile, percentile])
    assert choice.high.item() == pytest.approx(high, abs=2 * width)
    assert choice.low.item() == pytest.approx(low, abs=2 * width)


def test_threads_do_not_matter():
    x = torch.randn(1_000_003)
    before = torch.get_num_threads()
    states = []
    try:
        for threads in (1, 2, 7):
            torch.set_num_threads(threads)
            states.append(observed(x, 3 * x).state)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(states[0], states[1])
    assert torch.equal(states[0], states[2])


def test_memory_layout_does_not_matter():
    x = torch.randn(4, 6, 10, 10)
    expected = observed(x).histogram
    for y in (x.to(memory_format=torch.channels_last), x[:, :, ::2], x.mT, x.flip(3)):
        whole = torch.equal(observed(y).histogram, expected)
        assert whole == (y.numel() == x.numel())
        assert observed(y).count.item() == y.numel()


@pytest.mark.parametrize("copy_of", [copy.deepcopy, lambda o: pickle.loads(pickle.dumps(o))])
def test_copies_are_independent(copy_of):
    observer = observed(torch.randn(100))
    other = copy_of(observer)
    assert torch.equal(other.state, observer.state)
    other.observe(torch.ones(1))
    assert observer.count.item() == 100


def test_sqnr_is_in_decibels():
    zero, one = torch.zeros(2), torch.ones(2)
    assert RangeChoice(zero, one, zero, one * 0.01, one).sqnr == pytest.approx(20)
    assert RangeChoice(zero, one, zero, zero, one).sqnr == np.inf
    assert RangeChoice(zero, one, zero, one, zero).sqnr == -np.inf


@pytest.mark.parametrize("method", ["percentile", "mse", "kl", "lsq", "best"])
def test_methods_clip_an_outlier(method):
    """The range of 100,000 normal values with one at 100, in 4 bits."""
    spec = QuantSpec(bits=4)
    observer = observed(torch.randn(100_000), torch.tensor([100.0]), spec=spec)
    choice = choose(observer, method, spec)
    full = choose(observer, "min_max", spec)
    assert full.high.item() == 100
    assert 1 < choice.high.item() < 20
    assert choice.error.item() < 0.8 * full.error.item()
    assert 0 < choice.clipped_share.item() < 0.2
