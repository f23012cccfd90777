"""`qatx::fake_quantize`, forward and backward, and `qatx::quantize`, against exact arithmetic."""

import math
import random
import struct
from fractions import Fraction

import exact
import numpy as np
import pytest
import qatx  # noqa: F401  (registers the operators)
import torch
from exact import FORMATS, round_to, same_bits

INF, NAN = math.inf, math.nan
DTYPES = list(FORMATS)
# A power of two, reciprocals that are rounded up and down, and both ends of what is allowed.
SCALES = [0.25, 1 / 3, 0.1, 0.7, 3.0, 2.0**-126, 2.0**126]
GRADS = [1.0, -2.0, 0.3, -0.0, 1e-30, -3e30]


def held(value: float, dtype: torch.dtype) -> float:
    """The value as this dtype holds it."""
    return torch.tensor(value, dtype=torch.float64).to(dtype).item()


def neighbours(value: float, dtype: torch.dtype) -> list[float]:
    """The value in this dtype, the one below it and the one above it."""
    x = torch.tensor(held(value, dtype), dtype=dtype)
    ends = (torch.tensor(end, dtype=dtype) for end in (-INF, INF))
    return [x.item(), *(torch.nextafter(x, end).item() for end in ends)]


class Elements:
    """Elements with parameters of their own, and what exact arithmetic says about them."""

    def __init__(self, quant_min: int, quant_max: int, dtype: torch.dtype) -> None:
        self.quant_min, self.quant_max, self.dtype = quant_min, quant_max, dtype
        self.qparams_dtype = torch.float64 if dtype == torch.float64 else torch.float32
        self.rows: list[tuple[float, float, float, float]] = []

    def add(self, x: float, scale: float, zero_point: float) -> None:
        grad = GRADS[len(self.rows) % len(GRADS)]
        self.rows.append(
            (
                held(x, self.dtype),
                held(grad, self.dtype),
                held(scale, self.qparams_dtype),
                held(zero_point, self.qparams_dtype),
            )
        )

    def add_code(self, code: int, scale: float, zero_point: int) -> None:
        """A code's own value, and the border to the next code with its neighbours."""
        scale = held(scale, self.qparams_dtype)
        self.add((code - zero_point) * scale, scale, zero_point)
        for x in neighbours((code - zero_point + 0.5) * scale, self.dtype):
            self.add(x, scale, zero_point)

    def check(self, seed: int | None = None) -> None:
        columns = list(zip(*self.rows, strict=True))
        x, grad = (exact.tensor(column, self.dtype).requires_grad_() for column in columns[:2])
        scale, zero_point = (
            exact.tensor(column, self.qparams_dtype).requires_grad_() for column in columns[2:]
        )
        codes = (self.quant_min, self.quant_max)
        noise = [None] * len(self.rows) if seed is None else exact.philox(seed, len(self.rows))
        expected = [
            exact.fake_quantize(*row, *codes, self.dtype, u)
            for row, u in zip(self.rows, noise, strict=True)
        ]
        y, code, dx, dscale, dzero_point = zip(*expected, strict=True)
        actual = torch.ops.qatx.fake_quantize(
            x, scale, zero_point, *codes, 0, seed=None if seed is None else torch.tensor(seed)
        )
        actual.backward(grad.detach())
        assert same_bits(actual.detach(), exact.tensor(y, self.dtype))
        assert same_bits(x.grad, exact.tensor(dx, self.dtype))
        # The sign of a sum that is zero is not fixed.
        assert same_bits(scale.grad + 0.0, exact.tensor(dscale, self.qparams_dtype) + 0.0)
        assert same_bits(zero_point.grad + 0.0, exact.tensor(dzero_point, self.qparams_dtype) + 0.0)
        if seed is None:
            integers = torch.ops.qatx.quantize(x, scale, zero_point, *codes, 0)
            assert integers.tolist() == list(code)


def code_ranges(*, bits: int) -> list[tuple[int, int]]:
    """Unsigned and signed, each with and without its lowest code."""
    half = 2 ** (bits - 1)
    return [(0, 2 * half - 1), (1, 2 * half - 1), (-half, half - 1), (1 - half, half - 1)]


ALL_RANGES = [(bits, *codes) for bits in range(2, 9) for codes in code_ranges(bits=bits)]


@pytest.mark.parametrize("to", FORMATS.values(), ids=map(str, FORMATS))
def test_exact_rounding(to):
    """`round_to` itself, against conversions that others wrote."""
    rng = random.Random(1)

    def convert(value: float) -> float:
        if to == FORMATS[torch.bfloat16]:
            return torch.tensor(value, dtype=torch.float32).bfloat16().item()
        if to == FORMATS[torch.float16]:
            with np.errstate(over="ignore"):
                return float(np.float16(value))
        if to == FORMATS[torch.float64]:
            return value
        try:
            return struct.unpack("f", struct.pack("f", value))[0]
        except OverflowError:
            return math.copysign(INF, value)

    smallest = to.emin - to.precision + 1
    for _ in range(3000):
        value = rng.uniform(-1, 1) * 2.0 ** rng.randint(max(smallest - 3, -1074), to.emax)
        if to == FORMATS[torch.bfloat16]:
            value = float(np.float32(value))  # what torch converts from
        assert struct.pack("d", round_to(Fraction(value), to)) == struct.pack("d", convert(value))
    # Ties, and what lies beside them by less than any double can tell.
    for digits in (1, 2, 3, 2 ** (to.precision - 1), 2**to.precision - 1):
        unit = Fraction(2) ** smallest
        tie = (digits + Fraction(1, 2)) * unit
        assert round_to(tie, to) == (digits + digits % 2) * unit
        assert round_to(tie + Fraction(1, 10**400) * unit, to) == (digits + 1) * unit
        assert round_to(-tie + Fraction(1, 10**400) * unit, to) == -digits * unit
    largest = (2 - Fraction(2) ** (1 - to.precision)) * 2**to.emax
    half = Fraction(2) ** (to.emax - to.precision)
    assert round_to(largest, to) == largest
    assert round_to(largest + half, to) == INF
    assert round_to(largest + half * Fraction(999, 1000), to) == largest


@pytest.mark.parametrize(("bits", "quant_min", "quant_max"), ALL_RANGES)
def test_every_code(bits, quant_min, quant_max):
    """Every code, and some outside, with five zero points; the scales take turns."""
    elements = Elements(quant_min, quant_max, torch.float32)
    scales = iter(SCALES * 1000)
    third = (quant_max - quant_min) // 3
    for zero_point in {quant_min, quant_min + third, quant_max - third, quant_max}:
        for code in range(quant_min - 3, quant_max + 3):
            elements.add_code(code, next(scales), zero_point)
    elements.check()
    assert len(elements.rows) >= 4 * 2**bits


@pytest.mark.parametrize(("bits", "quant_min", "quant_max"), ALL_RANGES)
def test_every_zero_point(bits, quant_min, quant_max):
    """Every zero point, at both ends of the codes and at zero; and those that are rounded."""
    elements = Elements(quant_min, quant_max, torch.float32)
    scales = iter(SCALES * 1000)
    for zero_point in range(quant_min, quant_max + 1):
        for code in (quant_min - 1, quant_min, zero_point - 1, zero_point, quant_max):
            elements.add_code(code, next(scales), zero_point)
    for zero_point in range(quant_min - 2, quant_max + 2, max(1, 2**bits // 16)):
        for learned in neighbours(zero_point + 0.5, torch.float32):
            for x in (quant_min - 1.0, 0.4, quant_max + 1.0):
                elements.add(x, 0.5, learned)
    for learned in (INF, -INF, 1e30, -1e30, 1e-45, -0.0):
        elements.add(0.6, 0.5, learned)
    elements.check()


def special_values(dtype: torch.dtype) -> list[float]:
    info = torch.finfo(dtype)
    denormal = info.smallest_normal * info.eps
    magnitudes = [0.0, denormal, info.smallest_normal, info.smallest_normal / 2, info.max, INF]
    return [NAN, *(sign * m for m in magnitudes for sign in (1, -1))]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("bits", "quant_min", "quant_max"), ALL_RANGES[::5])
def test_special_values(bits, quant_min, quant_max, dtype):  # noqa: ARG001 (in the test's name)
    elements = Elements(quant_min, quant_max, dtype)
    for scale in SCALES:
        for zero_point in (quant_min, (quant_min + quant_max) // 2, quant_max):
            for x in special_values(dtype):
                elements.add(x, scale, zero_point)
    elements.check()


@pytest.mark.parametrize("dtype", [d for d in DTYPES if d != torch.float32])
@pytest.mark.parametrize(("quant_min", "quant_max"), [(0, 255), (-8, 7), (-1, 1)])
def test_other_dtypes(quant_min, quant_max, dtype):
    elements = Elements(quant_min, quant_max, dtype)
    scales = iter(SCALES * 1000)
    for zero_point in {quant_min, (quant_min + quant_max + 1) // 2, quant_max}:
        for code in range(quant_min - 2, quant_max + 2):
            elements.add_code(code, next(scales), zero_point)
    elements.check()


@pytest.mark.parametrize("dtype", DTYPES)
def test_stochastic_rounding(dtype):
    rng = random.Random(2)
    elements = Elements(-8, 7, dtype)
    for _ in range(3000):
        scale = rng.choice(SCALES)
        steps = rng.choice([rng.uniform(-20, 20), rng.uniform(-1e-6, 1e-6), rng.randint(-9, 9)])
        elements.add(steps * scale, scale, rng.randint(-8, 7))
    for x in special_values(dtype):
        elements.add(x, 0.25, 1)
    elements.check(seed=2**62 - 12345)


@pytest.mark.parametrize("dtype", DTYPES)
def test_one_scale_for_all(dtype):
    """Runs of elements that share parameters. All terms are small multiples of 1/16, so their sum
    is exact in any order."""
    scale, zero_point, codes = 0.5, 3, (-8, 7)
    xs = [steps / 16 * scale for steps in range(-16 * 14, 16 * 14)]
    grads = [(1.0, -2.0, 0.5)[i % 3] for i in range(len(xs))]
    rows = [
        exact.fake_quantize(x, g, scale, zero_point, *codes, dtype)
        for x, g in zip(xs, grads, strict=True)
    ]
    qparams_dtype = torch.float64 if dtype == torch.float64 else torch.float32
    x = exact.tensor(xs, dtype).requires_grad_()
    qparams = [
        torch.tensor(v, dtype=qparams_dtype, requires_grad=True) for v in (scale, zero_point)
    ]
    y = torch.ops.qatx.fake_quantize(x, *qparams, *codes)
    y.backward(exact.tensor(grads, dtype))
    assert same_bits(y.detach(), exact.tensor([row.y for row in rows], dtype))
    assert same_bits(x.grad, exact.tensor([row.dx for row in rows], dtype))
    for parameter, name in zip(qparams, ("dscale", "dzero_point"), strict=True):
        total = sum(Fraction(getattr(row, name)) for row in rows)
        assert Fraction(parameter.grad.item()) == total
