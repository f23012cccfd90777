"""The operators `qatx::fake_quantize` and `qatx::learned_scale`."""

from itertools import product

import pytest
import qatx  # noqa: F401  (registers the operators)
import torch

fake_quantize = torch.ops.qatx.fake_quantize
learned_scale = torch.ops.qatx.learned_scale
INF = float("inf")


def oracle(x, scale, zero_point, quant_min, quant_max, axis, grad):
    """y, dx, dscale, dzero_point: rounding in float32, as in the contract, all else in float64."""
    shape = [1] * x.dim()
    if axis is not None:
        shape[axis] = -1
    scale = scale.reshape(shape)
    zero_point = zero_point.round().clamp(quant_min, quant_max).reshape(shape).double()
    scaled = x * (1.0 / scale)
    v = scaled.round().double() + zero_point
    q = v.clamp(quant_min, quant_max)
    inside = (v >= quant_min) & (v <= quant_max)
    g = grad.double()
    y = ((q - zero_point).float() * scale).reshape(x.shape)
    dx = torch.where(inside, grad, 0.0)
    dscale = g * torch.where(inside, q - zero_point - scaled.double(), q - zero_point)
    dzero_point = g * torch.where(inside, 0.0, -scale.double())
    others = [d for d in range(x.dim()) if axis is None or d != axis % x.dim()]
    if others:
        dscale, dzero_point = dscale.sum(others), dzero_point.sum(others)
    return y, dx, dscale.flatten(), dzero_point.flatten()


LAYOUTS = {
    "0-d": (lambda: torch.randn(()), None),
    "per tensor": (lambda: torch.randn(100_003), None),
    "per tensor, strided": (lambda: torch.randn(7, 11, 13).transpose(0, 2), None),
    "weights": (lambda: torch.randn(64, 32, 3, 3), 0),
    "depthwise weights": (lambda: torch.randn(64, 1, 3, 3), 0),
    "activations": (lambda: torch.randn(8, 5, 7, 9), 1),
    "channels_last": (
        lambda: torch.randn(8, 33, 7, 9).contiguous(memory_format=torch.channels_last),
        1,
    ),
    "channels_last, axis 2": (
        lambda: torch.randn(8, 3, 7, 9).contiguous(memory_format=torch.channels_last),
        2,
    ),
    "transposed": (lambda: torch.randn(8, 5, 7, 9).transpose(0, 2), 1),
    "sliced": (lambda: torch.randn(8, 10, 7, 9)[:, ::2], 1),
    "expanded": (lambda: torch.randn(5, 1).expand(5, 9), 0),
    "last axis": (lambda: torch.randn(300, 70), -1),
    "one channel": (lambda: torch.randn(9, 1, 5), 1),
    "long runs": (lambda: torch.randn(3, 10_000), 0),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_equals_the_oracle(layout: str):
    make, axis = LAYOUTS[layout]
    x = make().requires_grad_()
    channels = 1 if axis is None else x.shape[axis]
    scale = (torch.rand(channels) * 0.1 + 0.02).requires_grad_()
    zero_point = (torch.randn(channels) * 3).requires_grad_()
    y = fake_quantize(x, scale, zero_point, -8, 7, axis)
    grad = torch.randn_like(y)
    y.backward(grad)
    expected_y, dx, dscale, dzero_point = oracle(
        x.detach(), scale.detach(), zero_point.detach(), -8, 7, axis, grad
    )
    assert torch.equal(y.detach(), expected_y)
    assert torch.equal(x.grad, dx)
    torch.testing.assert_close(scale.grad.double(), dscale, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(zero_point.grad.double(), dzero_point, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("bits", "signed"), list(product(range(2, 9), [False, True])))
def test_every_code_and_its_edges(bits: int, signed: bool):
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    scale = torch.tensor([0.25])  # exact, so ties are ties
    for point in (low, high, (low + high) // 2):
        zero_point = torch.tensor([float(point)])
        x = (torch.arange(4 * (low - point) - 10, 4 * (high - point) + 11) / 16).requires_grad_()
        y = fake_quantize(x, scale, zero_point, low, high)
        y.sum().backward()
        expected_y, dx, _, _ = oracle(
            x.detach(), scale, zero_point, low, high, None, torch.ones_like(x)
        )
        assert torch.equal(y, expected_y)
        assert torch.equal(x.grad, dx)
        assert len(y.unique()) == 2**bits


def test_special_values():
    x = torch.tensor([float("nan"), INF, -INF, 0.0, -0.0, 1e-45, 3e38, -3e38], requires_grad=True)
    y = fake_quantize(x, torch.tensor(0.5), torch.tensor(1.0), -8, 7)
    torch.testing.assert_close(
        y.detach(),
        torch.tensor([float("nan"), 3.0, -4.5, 0, 0, 0, 3.0, -4.5]),
        rtol=0,
        atol=0,
        equal_nan=True,
    )
    y.nan_to_num().sum().backward()
    assert x.grad.tolist() == [0, 0, 0, 1, 1, 1, 0, 0]


def gradients_at(operator, value: float) -> tuple[float, float, float, float]:
    """y, dx, dscale and dzero_point of one element with scale 1 and zero point -3, codes -8..7."""
    x = torch.tensor([value], requires_grad=True)
    scale = torch.tensor([1.0], requires_grad=True)
    zero_point = torch.tensor([-3.0], requires_grad=True)
    y = operator(x, scale, zero_point, -8, 7)
    y.backward()
    return y.item(), x.grad.item(), scale.grad.item(), zero_point.grad.item()


def test_zero_point_is_rounded_alike_in_both_directions():
    """ATen's learnable operator rounds the zero point forward, but truncates `zp + 0.5` backward:
    -3 becomes -2 there, which shifts the mask by one code."""
    aten = torch._fake_quantize_learnable_per_tensor_affine
    for x in (-7.0, -6.0, 11.0, 12.0):  # codes -10 and -9 lie below the range, 8 and 9 above it
        low_or_high = -5.0 if x < 0 else 10.0
        assert gradients_at(fake_quantize, x) == (low_or_high, 0.0, low_or_high, -1.0)
    for x in (-5.0, 0.0, 10.0):  # codes of the range, without an error of rounding
        assert gradients_at(fake_quantize, x) == (x, 1.0, 0.0, 0.0)
    assert gradients_at(aten, -6.0) == (-5.0, 1.0, 0.0, 0.0)  # clamped, and taken for a code
    assert gradients_at(aten, 10.0)[1] == 0.0  # a code, and taken for clamped


def test_grad_scale_multiplies_the_gradients_of_the_parameters():
    x = torch.randn(1000, requires_grad=True)
    grads = []
    for grad_scale in (1.0, 0.25):
        x.grad = None
        scale = torch.tensor(0.01, requires_grad=True)
        zero_point = torch.tensor(2.0, requires_grad=True)
        fake_quantize(x, scale, zero_point, -8, 7, None, grad_scale).sum().backward()
        grads.append((scale.grad, zero_point.grad, x.grad))
    assert torch.equal(grads[1][0], grads[0][0] * 0.25)
    assert torch.equal(grads[1][1], grads[0][1] * 0.25)
    assert torch.equal(grads[1][2], grads[0][2])


def test_compiles_without_a_graph_break():
    def step(x, scale):
        return fake_quantize(x, learned_scale(scale), torch.zeros(1), -8, 7)

    x = torch.randn(64, requires_grad=True)
    scale = torch.tensor([0.1], requires_grad=True)
    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    y = compiled(x, scale)
    y.sum().backward()
    assert torch.equal(y, step(x, scale))
    assert scale.grad is not None


def test_empty_tensors():
    for shape, axis in (((0,), None), ((0, 3), 1), ((3, 0), 0), ((4, 0), 1)):
        channels = 1 if axis is None else shape[axis]
        x = torch.zeros(shape, requires_grad=True)
        scale = torch.ones(channels, requires_grad=True)
        y = fake_quantize(x, scale, torch.zeros(channels), 0, 255, axis)
        y.sum().backward()
        assert y.shape == x.shape
        assert scale.grad.tolist() == [0.0] * channels


X = torch.zeros(2, 3)
ONE, ZERO = torch.ones(1), torch.zeros(1)


@pytest.mark.parametrize(
    ("args", "error", "message"),
    [
        ((X.int(), ONE, ZERO, 0, 255), TypeError, "x must be float32, .* or float64, got Int"),
        ((X.double(), ONE, ZERO, 0, 255), TypeError, "scale must be float64 where x is, got Float"),
        ((X, ONE.double(), ZERO, 0, 255), TypeError, "scale must be float32, got Double"),
        ((X, ONE, ZERO.int(), 0, 255), TypeError, "zero_point must be float32, got Int"),
        ((X, torch.ones(2), torch.zeros(2), 0, 255), ValueError, "scale must have one element"),
        ((X, torch.ones(2), torch.zeros(2), 0, 255, 1), ValueError, r"scale must have shape \[3\]"),
        ((X, torch.ones(3), ZERO, 0, 255, 1), ValueError, r"zero_point must have shape \[3\]"),
        ((X, ONE, ZERO, 0, 255, 2), ValueError, "axis must be one of the 2 dimensions of x, got 2"),
        ((X, ONE, ZERO, 0, 256), ValueError, "quant_max=256"),
        ((X, ONE, ZERO, -1, 128), ValueError, "quant_min=-1"),
        ((X, ONE, ZERO, 7, 7), ValueError, "quant_min=7"),
        ((X, 0 * ONE, ZERO, 0, 255), ValueError, r"scale\[0\] must be positive.* got 0"),
        ((X, -ONE, ZERO, 0, 255), ValueError, r"scale\[0\] must be positive.* got -1"),
        ((X, ONE * float("nan"), ZERO, 0, 255), ValueError, r"scale\[0\].* got nan"),
        ((X, ONE * INF, ZERO, 0, 255), ValueError, r"scale\[0\].* got inf"),
        ((X, ONE * 1e-40, ZERO, 0, 255), ValueError, r"scale\[0\].* got 9.99"),
        ((X, ONE, ZERO * float("nan"), 0, 255), ValueError, r"zero_point\[0\] must be a number"),
        ((X, ONE.to("meta"), ZERO, 0, 255), ValueError, "scale must be on the device of x"),
    ],
)
def test_bad_arguments_are_named(args, error, message):
    with pytest.raises(error, match=message):
        fake_quantize(*args)


GROUPED = torch.ones(2, 2)
ALL_OF = {"scale": ONE, "zero_point": ZERO, "quant_min": 0, "quant_max": 255}


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"group_size": 2}, ValueError, "group_size needs an axis, got axis=None"),
        ({"axis": 1, "group_size": 0}, ValueError, "group_size must be at least 1, got 0"),
        ({"axis": 1, "group_size": 2}, ValueError, r"scale must have shape \[2, 2\].* got \[1\]"),
        (
            {"axis": 1, "group_size": 2, "scale": GROUPED},
            ValueError,
            r"zero_point must have shape \[2, 2\], one element for each group of 2 along axis 1",
        ),
        (
            {"axis": 1, "group_size": 2, "scale": -GROUPED, "zero_point": GROUPED},
            ValueError,
            r"scale\[0\] must be positive.* got -1",
        ),
        ({"seed": torch.tensor(1.0)}, TypeError, "seed must be int64, got Float"),
        ({"seed": torch.tensor([1, 2])}, ValueError, r"seed must have one element, .*\[2\]"),
        ({"out": X.double()}, TypeError, "out must have the dtype of x, Float, got Double"),
        ({"out": X[0]}, ValueError, r"out must have the shape of x, \[2, 3\], got \[3\]"),
        ({"out": X.to("meta")}, ValueError, "out must be on the device of x, cpu, got meta"),
    ],
)
def test_bad_options_are_named(arguments, error, message):
    with pytest.raises(error, match=message):
        fake_quantize(X, **{**ALL_OF, **arguments})


def test_out_must_not_overlap_what_is_read():
    memory = torch.zeros(8)
    with pytest.raises(RuntimeError, match="single memory location"):
        fake_quantize(memory[:6], **ALL_OF, out=memory[2:])
    with pytest.raises(RuntimeError, match="single memory location"):
        fake_quantize(memory[:1], memory[7:] + 1, memory[1:2], 0, 255, out=memory[1:2])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"grad": X[0]}, ValueError, r"grad must have the shape of x, \[2, 3\], got \[3\]"),
        ({"grad": X.double()}, TypeError, "grad must have the dtype of x, Float, got Double"),
        ({"grad": X.to("meta")}, ValueError, "grad must be on the device of x, cpu, got meta"),
        ({"scale": 0 * ONE}, ValueError, r"scale\[0\] must be positive.* got 0"),
        ({"zero_point": ZERO.int()}, TypeError, "zero_point must be float32, got Int"),
        ({"seed": torch.tensor(1.0)}, TypeError, "seed must be int64, got Float"),
        ({"quant_max": 256}, ValueError, "quant_max=256"),
        ({"axis": -3}, ValueError, "axis must be one of the 2 dimensions of x, got -3"),
    ],
)
def test_bad_arguments_of_the_backward(arguments, error, message):
    with pytest.raises(error, match=message):
        torch.ops.qatx.fake_quantize_backward(**{"grad": X, "x": X, **ALL_OF, **arguments})


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda o: o.learned_scale(ONE.half()), "raw must be float32 or float64, got Half"),
        (lambda o: o.power_of_two_scale(ONE.int()), "scale must be float32 or float64, got Int"),
        (lambda o: o.learned_zero_point(ONE.int()), "raw must be float32, .* or float64, got Int"),
        (
            lambda o: o.learned_scale_backward(ONE.double(), ONE),
            "grad must have the dtype of raw, Float, got Double",
        ),
    ],
)
def test_bad_parameters_are_named(call, message):
    with pytest.raises(TypeError, match=message):
        call(torch.ops.qatx)


def test_learned_scale_is_always_valid():
    raw = torch.tensor([0.5, -0.5, 0.0, float("nan"), INF, -INF, 1e-40], requires_grad=True)
    scale = learned_scale(raw)
    assert scale[:2].tolist() == [0.5, 0.5]
    assert bool(((scale >= 2.0**-64) & (scale <= 2.0**64)).all())
    scale.backward(torch.tensor([1.0, 1.0, 1.0, 1.0, INF, float("nan"), 1.0]))
    assert raw.grad.tolist() == [1, -1, 1, 1, 0, 0, 1]


def test_learned_zero_point_is_always_a_number():
    raw = torch.tensor([1.5, float("nan"), INF, -INF, -0.0], requires_grad=True)
    zero_point = torch.ops.qatx.learned_zero_point(raw)
    assert zero_point.tolist() == [1.5, 0, INF, -INF, 0]
    zero_point.backward(torch.tensor([2.0, 3.0, INF, -INF, float("nan")]))
    assert raw.grad.tolist() == [2, 3, 0, 0, 0]
