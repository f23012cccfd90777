"""The operator `qatx::pact`."""

from fractions import Fraction

import exact
import pytest
import torch
from exact import FORMATS, same_bits
from operators import ops, qparams_dtype

INF, NAN = float("inf"), float("nan")


@pytest.mark.parametrize("dtype", list(FORMATS))
@pytest.mark.parametrize("bits", range(2, 9))
def test_equals_exact_arithmetic(bits, dtype):
    """Every code and its borders, and what is special, with a clipping point for each element."""
    quant_max = 2**bits - 1
    real = exact.real_format(dtype)
    xs, alphas = [], []
    for i, steps in enumerate(range(-4, 2 * quant_max + 4)):
        alpha = torch.tensor((1.0, 6.0, 0.3, 1e30, 1e-30)[i % 5], dtype=qparams_dtype(dtype)).item()
        for x in (steps * alpha / quant_max / 2, alpha, NAN, INF, -INF, -0.0, 1e-45):
            xs.append(torch.tensor(x, dtype=torch.float64).to(dtype).item())
            alphas.append(alpha)
    grads = [(1.0, -0.5, 3.0)[i % 3] for i in range(len(xs))]
    ys, dxs, dalphas = [], [], []
    for x, alpha, grad in zip(xs, alphas, grads, strict=True):
        scale = exact.round_to(Fraction(alpha) / quant_max, real)
        ys.append(exact.fake_quantize(x, grad, scale, 0.0, 0, quant_max, dtype).y)
        dxs.append(grad if 0 <= x < alpha else 0.0)
        dalphas.append(grad if x >= alpha else 0.0)
    x = exact.tensor(xs, dtype).requires_grad_()
    alpha = exact.tensor(alphas, qparams_dtype(dtype)).requires_grad_()
    y = ops.pact(x, alpha, quant_max, 0)
    y.backward(exact.tensor(grads, dtype))
    assert same_bits(y.detach(), exact.tensor(ys, dtype))
    assert same_bits(x.grad, exact.tensor(dxs, dtype))
    assert same_bits(alpha.grad, exact.tensor(dalphas, alpha.dtype))


@pytest.mark.parametrize("axis", [None, 0, 1, -1])
def test_sums_of_each_channel(axis):
    x = (torch.randn(5, 6, 7) * 2).requires_grad_()
    channels = 1 if axis is None else x.shape[axis]
    alpha = torch.linspace(0.5, 2, channels).requires_grad_()
    grad = torch.randint(-3, 4, x.shape).float()  # their sums are exact
    ops.pact(x, alpha, 15, axis).backward(grad)
    shape = [1, 1, 1]
    if axis is not None:
        shape[axis] = -1
    clipped = x.detach() >= alpha.detach().reshape(shape)
    inside = (x.detach() >= 0) & ~clipped
    others = [d for d in range(3) if axis is None or d != axis % 3]
    assert torch.equal(x.grad, torch.where(inside, grad, 0.0))
    assert torch.equal(alpha.grad, torch.where(clipped, grad, 0.0).sum(others).reshape(channels))


X, ONE = torch.zeros(2, 3), torch.ones(1)


@pytest.mark.parametrize(
    ("args", "error", "message"),
    [
        ((X.int(), ONE, 15), TypeError, r"x must be float32, .* or float64, got Int"),
        ((X, ONE.double(), 15), TypeError, "alpha must be float32, got Double"),
        ((X.double(), ONE, 15), TypeError, "alpha must be float64 where x is, got Float"),
        ((X, torch.ones(3), 15), ValueError, r"alpha must have one element .*got shape \[3\]"),
        ((X, torch.ones(2), 15, 1), ValueError, r"alpha must have shape \[3\]"),
        ((X, ONE, 15, 5), ValueError, "axis must be one of the 2 dimensions of x, got 5"),
        ((X, ONE, 256), ValueError, r"0\.\.255, got quant_min=0 and quant_max=256"),
        ((X, ONE, 0), ValueError, "quant_min < quant_max must lie .*quant_max=0"),
        *(
            ((X, ONE * bad, 15), ValueError, rf"alpha\[0\] must be positive and finite.*got {text}")
            for bad, text in ((0, "0"), (-2, "-2"), (NAN, "nan"), (INF, "inf"), (1e-38, "1e-38"))
        ),
    ],
)
def test_bad_arguments(args, error, message):
    with pytest.raises(error, match=message):
        ops.pact(*args)


@pytest.mark.parametrize(
    ("args", "error", "message"),
    [
        ((X[0], X, ONE), ValueError, r"grad must have the shape of x, \[2, 3\], got \[3\]"),
        ((X.double(), X, ONE), TypeError, "grad must have the dtype of x, Float, got Double"),
        ((X, X, torch.ones(2)), ValueError, "alpha must have one element"),
        ((X, X, ONE, 2), ValueError, "axis must be one of the 2 dimensions of x, got 2"),
    ],
)
def test_bad_arguments_of_the_backward(args, error, message):
    with pytest.raises(error, match=message):
        ops.pact_backward(*args)
