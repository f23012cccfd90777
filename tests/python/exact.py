"""The numeric contract in exact arithmetic: fractions, rounded where the contract rounds.

Values are Python floats, which hold those of every smaller format. Shares no code with qatx and no
formula with its kernels, which count in steps from the zero point.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

import torch


@dataclass(frozen=True)
class Format:
    """A binary floating-point format: bits of the significand, smallest and largest exponent."""

    precision: int
    emin: int
    emax: int


FLOAT32 = Format(24, -126, 127)
FORMATS = {
    torch.float64: Format(53, -1022, 1023),
    torch.float32: FLOAT32,
    torch.bfloat16: Format(8, -126, 127),
    torch.float16: Format(11, -14, 15),
}


def real_format(dtype: torch.dtype) -> Format:
    """What arithmetic on elements of this dtype is done in."""
    return FORMATS[dtype] if dtype == torch.float64 else FLOAT32


def round_to(value: Fraction, to: Format) -> float:
    """The nearest value of a format, ties to even; denormals, overflow and the sign of 0 too."""
    if value == 0:
        return 0.0
    numerator, denominator = abs(value.numerator), value.denominator
    exponent = numerator.bit_length() - denominator.bit_length()
    if numerator << max(-exponent, 0) < denominator << max(exponent, 0):
        exponent -= 1  # 2^exponent <= |value| < 2^(exponent + 1)
    quantum = max(exponent, to.emin) - to.precision + 1
    numerator, denominator = numerator << max(-quantum, 0), denominator << max(quantum, 0)
    digits, rest = divmod(numerator, denominator)
    if 2 * rest > denominator or (2 * rest == denominator and digits % 2):
        digits += 1
    overflow = digits.bit_length() + quantum > to.emax + 1
    magnitude = math.inf if overflow else math.ldexp(digits, quantum)
    return -magnitude if value < 0 else magnitude


def product(a: float, b: float, to: Format) -> float:
    """a * b with one rounding."""
    if a == 0 or b == 0 or not (math.isfinite(a) and math.isfinite(b)):
        return a * b
    return round_to(Fraction(a) * Fraction(b), to)


def rint(x: float) -> int:
    """The nearest integer, ties to even, of a finite number."""
    return round(Fraction(x))


def zero_point_in_use(zero_point: float, quant_min: int, quant_max: int) -> int:
    if math.isinf(zero_point):
        return quant_max if zero_point > 0 else quant_min
    return min(max(rint(zero_point), quant_min), quant_max)


class Quantized(NamedTuple):
    """What becomes of one element: y and dx in the dtype of x, the terms in that of parameters."""

    y: float
    code: int
    dx: float
    dscale: float
    dzero_point: float


def fake_quantize(
    x: float,
    grad: float,
    scale: float,
    zero_point: float,
    quant_min: int,
    quant_max: int,
    dtype: torch.dtype,
    noise: float | None = None,
) -> Quantized:
    """docs/numerics.md for one element that has parameters of its own."""
    real = real_format(dtype)
    inv_scale = round_to(1 / Fraction(scale), real)
    scaled = product(x, inv_scale, real)
    zero = zero_point_in_use(zero_point, quant_min, quant_max)
    outside = product(-grad, scale, real)
    if math.isnan(scaled):
        return Quantized(math.nan, zero, 0.0, math.nan, outside)
    if math.isinf(scaled):
        code, inside = (quant_max if scaled > 0 else quant_min), False
    else:
        v = _rounded(scaled, noise, real) + zero
        code = min(max(v, quant_min), quant_max)
        inside = code == v
    steps = code - zero
    y = round_to(steps * Fraction(scale), real)
    if math.isfinite(y):
        y = round_to(Fraction(y), FORMATS[dtype])
    if inside:
        error = round_to(steps - Fraction(scaled), real)
        return Quantized(y, code, grad, product(grad, error, real), 0.0)
    return Quantized(y, code, 0.0, product(grad, float(steps), real), outside)


def _rounded(scaled: float, noise: float | None, real: Format) -> int:
    if noise is None:
        return rint(scaled)
    down = math.floor(scaled)
    return down + (noise < round_to(Fraction(scaled) - down, real))


def philox(seed: int, count: int) -> list[float]:
    """The first numbers of the stream of a seed: Philox 4x32-10 from its paper (SC 2011)."""
    numbers: list[float] = []
    mask = 2**32 - 1
    for counter in range(-(-count // 4)):
        words = [counter & mask, counter >> 32, 0, 0]
        keys = [seed & mask, seed >> 32 & mask]
        for _ in range(10):
            high0, low0 = divmod(0xD2511F53 * words[0], 2**32)
            high1, low1 = divmod(0xCD9E8D57 * words[2], 2**32)
            words = [high1 ^ words[1] ^ keys[0], low1, high0 ^ words[3] ^ keys[1], low0]
            keys = [keys[0] + 0x9E3779B9 & mask, keys[1] + 0xBB67AE85 & mask]
        numbers += [(word >> 8) / 2**24 for word in words]
    return numbers[:count]


def tensor(values: Sequence[float], dtype: torch.dtype) -> torch.Tensor:
    """A tensor of values that are in the dtype already."""
    wide = torch.tensor(values, dtype=torch.float64)
    result = wide.to(dtype)
    assert torch.equal(result.double().nan_to_num(), wide.nan_to_num())
    return result


def same_bits(actual: torch.Tensor, expected: torch.Tensor) -> bool:
    """Equal bits in every element; all NaN are alike."""
    assert actual.dtype == expected.dtype
    assert actual.shape == expected.shape
    integers = {8: torch.int64, 4: torch.int32, 2: torch.int16}[actual.element_size()]
    equal = actual.contiguous().view(integers) == expected.contiguous().view(integers)
    return bool((equal | (actual.isnan() & expected.isnan())).all())
