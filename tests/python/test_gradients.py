"""Gradients against finite differences of what straight-through estimators stand for."""

from collections.abc import Callable

import pytest
import torch
from operators import CALLS, DIFFERENTIABLE, ops, tensors
from quantizers import MAKERS, SHAPE, calibrated
from torch import Tensor
from torch.autograd import forward_ad

QUANT_MIN, QUANT_MAX = -8, 7


def check_surrogate(
    surrogate: Callable[..., Tensor], operator: Callable[..., Tensor], *inputs: Tensor
) -> None:
    """Finite differences of `surrogate` must be what autograd finds for `operator`."""

    class Both(torch.autograd.Function):
        @staticmethod
        def forward(ctx, *values):
            ctx.save_for_backward(*values)
            return surrogate(*values)

        @staticmethod
        def backward(ctx, grad):
            values = [v.detach().requires_grad_() for v in ctx.saved_tensors]
            with torch.enable_grad():
                y = operator(*values)
            return torch.autograd.grad(y, values, grad, allow_unused=True, materialize_grads=True)

    inputs = tuple(t.detach().clone().double().requires_grad_() for t in inputs)
    assert torch.autograd.gradcheck(Both.apply, inputs, eps=1e-6, atol=1e-7, rtol=1e-6)


def expand(t: Tensor, x: Tensor, axis: int | None, group_size: int | None) -> Tensor:
    """Parameters, one for each element of x."""
    if group_size is not None:
        return t.repeat_interleave(group_size, axis).narrow(axis, 0, x.shape[axis])
    return t if axis is None else t.reshape([-1 if d == axis else 1 for d in range(x.dim())])


@pytest.mark.parametrize("seed", [None, 7])
@pytest.mark.parametrize("pass_through", [False, True])
@pytest.mark.parametrize(
    ("axis", "group_size", "shape"),
    [(None, None, ()), (0, None, (4,)), (2, None, (5,)), (1, 2, (4, 2, 5)), (2, 2, (4, 3, 3))],
)
def test_fake_quantize(axis, group_size, shape, pass_through, seed):
    """Inside the range `y = x + scale * e` with the rounding error e held fixed, outside
    `y = (q - zero_point) * scale` with the code held fixed."""
    scale = torch.rand(shape).double() * 0.2 + 0.1
    zero_point = torch.randint(QUANT_MIN, QUANT_MAX + 1, shape).double()
    full_scale = expand(scale, torch.empty(4, 3, 5), axis, group_size)
    full_zero = expand(zero_point, torch.empty(4, 3, 5), axis, group_size)
    # Codes and some outside, and what lies between: never near a border of rounding.
    codes = torch.randint(QUANT_MIN - 4, QUANT_MAX + 5, (4, 3, 5)).double()
    # Stochastic rounding makes the next code of some.
    codes[codes == QUANT_MAX] += 2
    codes[codes == QUANT_MIN - 1] -= 1
    x = (codes - full_zero + torch.rand(4, 3, 5) * 0.3 + 0.1) * full_scale
    inside = (codes >= QUANT_MIN) & (codes < QUANT_MAX)

    def operator(x: Tensor, scale: Tensor, zero_point: Tensor) -> Tensor:
        return ops.fake_quantize(
            x,
            scale,
            zero_point,
            QUANT_MIN,
            QUANT_MAX,
            axis,
            group_size=group_size,
            pass_through=pass_through,
            seed=None if seed is None else torch.tensor(seed),
        )

    steps = operator(x, scale, zero_point) / full_scale
    error = steps - x / full_scale
    code = steps + full_zero
    assert inside.any()
    assert not inside.all()

    def surrogate(x_: Tensor, scale_: Tensor, zero_point_: Tensor) -> Tensor:
        s, z = (expand(t, x, axis, group_size) for t in (scale_, zero_point_))
        through = x_ - x if pass_through else 0.0
        return torch.where(inside, x_ + s * error, (code - z) * s + through)

    check_surrogate(surrogate, operator, x, scale, zero_point)


@pytest.mark.parametrize(("axis", "shape"), [(None, (1,)), (1, (6,))])
def test_pact(axis, shape):
    """PACT's own surrogate: clipping to [0, alpha]."""
    alpha = torch.rand(shape).double() + 1
    x = torch.randn(4, 6).double() * 2
    x = torch.where((x - alpha).abs() < 0.01, x + 0.1, x)
    check_surrogate(
        lambda x, alpha: torch.minimum(x.clamp_min(0), alpha.expand(4, 6)),
        lambda x, alpha: ops.pact(x, alpha, 15, axis),
        x,
        alpha,
    )


@pytest.mark.parametrize("axis", [None, 0])
def test_moving_average(axis):
    """The range is held fixed."""
    x = torch.randn(4, 6).double()
    high = x.abs().amax() / 2 if axis is None else x.abs().amax(1) / 2
    range_ = high.reshape(-1, 1)
    check_surrogate(
        # The last code's border lies half a step outside the range.
        lambda x: x.clamp(-range_ * 7.5 / 7, range_ * 7.5 / 7),
        lambda x: ops.moving_average_fake_quantize(x, -high, high, 0.0, -7, 7, True, axis)[0],
        x,
    )


@pytest.mark.parametrize("axis", [None, 0, 1])
def test_dorefa_weight(axis):
    """The paper's function without its rounding, largest magnitude and all."""
    others = [d for d in (0, 1) if d != axis]

    def surrogate(weight: Tensor) -> Tensor:
        t = weight.tanh()
        return t / t.abs().amax(others, keepdim=True)

    check_surrogate(surrogate, lambda w: ops.dorefa_weight(w, 3, axis), torch.randn(4, 6))


def test_scales():
    raw = torch.tensor([0.7, -0.7, 3.0, -1e-3], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(ops.learned_scale, (raw,))
    scale = raw.detach().abs()
    factor = ops.power_of_two_scale(scale) / scale
    check_surrogate(lambda s: factor * s, ops.power_of_two_scale, scale)


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_a_second_derivative_is_an_error(name):
    x = torch.randn(4, 6, requires_grad=True)
    y = tensors(CALLS[name](x, 1)())[0]
    (dx,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match=r"derivative for qatx::.*_backward is not implemented"):
        dx.sum().backward()


@pytest.mark.parametrize("kind", MAKERS)
def test_a_second_derivative_of_a_module_is_an_error(kind):
    x = torch.randn(SHAPE, requires_grad=True)
    y = calibrated(MAKERS[kind]())(x)
    (dx,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match=r"derivative for qatx::.*_backward is not implemented"):
        dx.sum().backward()


def test_a_second_derivative_of_a_power_of_two_is_right():
    scale = torch.tensor([0.7], requires_grad=True)
    (first,) = torch.autograd.grad(ops.power_of_two_scale(scale) ** 2, scale, create_graph=True)
    (second,) = torch.autograd.grad(first, scale)
    torch.testing.assert_close(second, torch.tensor([2 * (0.5 / 0.7) ** 2]))


PARAMETERS = ("learned_scale", "learned_zero_point", "power_of_two_scale")


@pytest.mark.parametrize("name", [*DIFFERENTIABLE, *PARAMETERS])
def test_a_forward_mode_derivative_is_an_error(name):
    x = torch.rand(4, 6) + 0.5
    operator = getattr(ops, name) if name in PARAMETERS else lambda x: CALLS[name](x, 1)()
    with forward_ad.dual_level(), pytest.raises(NotImplementedError, match="no forward-mode"):
        operator(forward_ad.make_dual(x, torch.ones_like(x)))
    with pytest.raises(NotImplementedError, match="no forward-mode"):
        torch.func.jvp(lambda x: tensors(operator(x))[0], (x,), (torch.ones_like(x),))


@pytest.mark.parametrize("name", ["dequantize", "quantize_dequantize"])
def test_what_has_no_gradient_says_so(name):
    call = CALLS[name](torch.randn(4, 6), None)
    scale = call.args[1].requires_grad_()
    y = call()
    with pytest.raises(RuntimeError, match=rf"derivative for qatx::{name} is not implemented"):
        y.sum().backward()
    assert scale.grad is None


def test_out_takes_no_gradient():
    call = CALLS["out"](torch.randn(4, 6), 1)
    call.args[1].requires_grad_()
    with pytest.raises(RuntimeError, match="fake_quantize with out= is not differentiable"):
        call()
