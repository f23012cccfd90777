"""`qatx::quantize`, `dequantize` and `quantize_dequantize` against fake quantization."""

import pytest
import torch
from operators import ops, qparams, qparams_dtype

DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]
RANGES = [(0, 255), (-128, 127), (-7, 7), (0, 3), (-2, 1), (-1, 1)]
INF, NAN = float("inf"), float("nan")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("quant_min", "quant_max"), RANGES)
@pytest.mark.parametrize(
    ("axis", "group_size"), [(None, None), (0, None), (1, None), (2, 3), (1, 2), (1, 99)]
)
def test_equal_fake_quantization(axis, group_size, quant_min, quant_max, dtype):
    x = (torch.randn(3, 5, 70) * quant_max / 8).to(dtype)
    scale, zero_point = qparams(x, axis, group_size)
    zero_point = (zero_point / 3 * (quant_max - quant_min)).clamp(quant_min, quant_max)
    arguments = (scale, zero_point, quant_min, quant_max, axis)
    expected = ops.fake_quantize(x, *arguments, group_size=group_size)
    codes = ops.quantize(x, *arguments, group_size=group_size)
    assert codes.dtype == (torch.int8 if quant_min < 0 else torch.uint8)
    assert codes.min() >= quant_min
    assert codes.max() <= quant_max
    assert len(codes.unique()) > 1
    y = ops.dequantize(codes, scale, zero_point, axis, group_size=group_size, dtype=dtype)
    assert y.dtype == dtype
    assert torch.equal(y, expected)
    assert torch.equal(ops.quantize_dequantize(x, *arguments, group_size=group_size), expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("zero_point", [-8.0, 2.0, 2.5, 7.0])
def test_special_values(zero_point, dtype):
    x = torch.tensor([NAN, INF, -INF, -0.0, torch.finfo(dtype).max], dtype=dtype)
    scale = torch.tensor(0.5, dtype=qparams_dtype(dtype))
    zero = torch.tensor(zero_point, dtype=scale.dtype)
    in_use = round(zero_point)
    codes = ops.quantize(x, scale, zero, -8, 7)
    assert codes.tolist() == [in_use, 7, -8, in_use, 7]
    y = ops.quantize_dequantize(x, scale, zero, -8, 7)
    assert y[0] == 0  # an integer has no NaN
    assert torch.equal(y[1:], ops.fake_quantize(x, scale, zero, -8, 7)[1:])


@pytest.mark.parametrize(("dtype", "low", "high"), [(torch.int8, -128, 127), (torch.uint8, 0, 255)])
def test_every_code(dtype, low, high):
    """A power of two for a scale makes the exact value representable."""
    codes = torch.arange(low, high + 1).to(dtype)
    for zero_point in (low, (low + high) // 2, high):
        scale, zero = torch.tensor(0.25), torch.tensor(float(zero_point))
        y = ops.dequantize(codes, scale, zero)
        assert y.tolist() == [(code - zero_point) * 0.25 for code in range(low, high + 1)]
        assert torch.equal(ops.quantize(y, scale, zero, low, high), codes)


X = torch.zeros(2, 3)
ONE, ZERO = torch.ones(1), torch.zeros(1)
BAD_QUANTIZE = [
    ((X.int(), ONE, ZERO, 0, 255), TypeError, r"x must be float32, .* or float64, got Int"),
    ((X, ONE.double(), ZERO, 0, 255), TypeError, "scale must be float32, got Double"),
    ((X, ONE, ZERO.int(), 0, 255), TypeError, "zero_point must be float32, got Int"),
    ((X, torch.ones(3), ZERO, 0, 255), ValueError, r"scale must have one element .*got .*\[3\]"),
    ((X, torch.ones(2), torch.zeros(2), 0, 255, 1), ValueError, r"scale must have shape \[3\]"),
    ((X, ONE, ZERO, 0, 255, 2), ValueError, "axis must be one of the 2 dimensions of x, got 2"),
    ((X, ONE, ZERO, -1, 255), ValueError, r"within -128\.\.127 or 0\.\.255, got quant_min=-1"),
    ((X, -ONE, ZERO, 0, 255), ValueError, r"scale\[0\] must be positive.* got -1"),
    ((X, ONE, ZERO * NAN, 0, 255), ValueError, r"zero_point\[0\] must be a number, got NaN"),
]


@pytest.mark.parametrize("op", [ops.quantize, ops.quantize_dequantize])
@pytest.mark.parametrize(("args", "error", "message"), BAD_QUANTIZE)
def test_bad_arguments_of_quantize(op, args, error, message):
    with pytest.raises(error, match=message):
        op(*args)


@pytest.mark.parametrize("op", [ops.quantize, ops.quantize_dequantize])
def test_bad_groups(op):
    with pytest.raises(ValueError, match="group_size needs an axis, got axis=None"):
        op(X, ONE, ZERO, 0, 255, group_size=2)
    with pytest.raises(ValueError, match="group_size must be at least 1, got 0"):
        op(X, ONE, ZERO, 0, 255, 1, group_size=0)
    with pytest.raises(ValueError, match=r"scale must have shape \[2, 2\], one element for each"):
        op(X, torch.ones(2, 3), torch.zeros(2, 3), 0, 255, 1, group_size=2)


CODES = torch.zeros(2, 3, dtype=torch.int8)


@pytest.mark.parametrize(
    ("args", "kwargs", "error", "message"),
    [
        ((X, ONE, ZERO), {}, TypeError, "codes must be int8 or uint8, got Float"),
        ((CODES, ONE.double(), ZERO), {}, TypeError, "scale must be float32, got Double"),
        ((CODES, ONE, ZERO), {"dtype": torch.float64}, TypeError, "scale must be float64 where x"),
        ((CODES, ONE, ZERO), {"dtype": torch.int32}, TypeError, "dtype must be float32, .*got Int"),
        ((CODES, ONE, torch.zeros(2)), {}, ValueError, "zero_point must have one element"),
        ((CODES, ONE, ZERO, 1), {}, ValueError, r"scale must have shape \[3\]"),
        ((CODES, ONE, ZERO, -3), {}, ValueError, "axis must be one of the 2 dimensions .*got -3"),
        ((CODES, ONE, ZERO), {"group_size": 2}, ValueError, "group_size needs an axis"),
        ((CODES, ONE * 0, ZERO), {}, ValueError, r"scale\[0\] must be positive.* got 0"),
        ((CODES, ONE, ZERO * NAN), {}, ValueError, r"zero_point\[0\] must be a number, got NaN"),
    ],
)
def test_bad_arguments_of_dequantize(args, kwargs, error, message):
    with pytest.raises(error, match=message):
        ops.dequantize(*args, **kwargs)
