"""The operators `qatx::fake_quantize` and `qatx::learned_scale`."""

from itertools import product

import pytest
import qatx  # noqa: F401  (registers the operators)
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

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


def test_zero_point_is_rounded_alike_in_both_directions():
    """ATen's learnable operator truncates `zp + 0.5` in its backward: a wrong mask."""
    x = torch.tensor([-5.0, 0.0, 4.0])
    grads = {}
    for name, operator in (
        ("qatx", lambda x, s, z: fake_quantize(x, s, z, -8, 7)),
        ("aten", lambda x, s, z: torch._fake_quantize_learnable_per_tensor_affine(x, s, z, -8, 7)),
    ):
        scale = torch.tensor([1.0], requires_grad=True)
        zero_point = torch.tensor([-3.0], requires_grad=True)
        operator(x[:1] - 1, scale, zero_point).backward()  # -6 - 3 = -9 lies below the range
        grads[name] = (scale.grad.item(), zero_point.grad.item())
    assert grads["qatx"] == (-5.0, -1.0)
    assert grads["aten"] != grads["qatx"]


@pytest.mark.parametrize("shape_axis", [((257, 4099), None), ((257, 4099), 1), ((257, 4099), 0)])
def test_gradients_have_the_same_bits_for_any_number_of_threads(shape_axis):
    shape, axis = shape_axis
    channels = 1 if axis is None else shape[axis]
    x, grad = torch.randn(shape), torch.randn(shape)
    scale, zero_point = torch.full((channels,), 0.07), torch.zeros(channels)
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 2, 3, 8):
            torch.set_num_threads(count)
            results.append(
                torch.ops.qatx.fake_quantize_backward(grad, x, scale, zero_point, -8, 7, axis)
            )
    finally:
        torch.set_num_threads(threads)
    for result in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(result, results[0], strict=True))


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


@pytest.mark.parametrize("axis", [None, 0, 1])
def test_opcheck(axis):
    x = torch.randn(4, 6, 5, requires_grad=True)
    channels = 1 if axis is None else x.shape[axis]
    scale = torch.full((channels,), 0.1, requires_grad=True)
    zero_point = torch.zeros(channels, requires_grad=True)
    args = (x, scale, zero_point, -8, 7, axis)
    torch.library.opcheck(fake_quantize.default, args)
    backward_args = (
        torch.randn(4, 6, 5),
        *(a.detach() if isinstance(a, Tensor) else a for a in args),
    )
    torch.library.opcheck(torch.ops.qatx.fake_quantize_backward.default, backward_args)
    torch.library.opcheck(learned_scale.default, (scale,))


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


def test_meta_tensors_have_shapes_and_no_data():
    x = torch.empty(2, 3, 4, 5, device="meta").to(memory_format=torch.channels_last)
    y = fake_quantize(x, torch.empty(3, device="meta"), torch.empty(3, device="meta"), 0, 255, 1)
    assert y.is_meta
    assert y.shape == x.shape
    assert y.stride() == x.stride()


def test_empty_tensors():
    for shape, axis in (((0,), None), ((0, 3), 1), ((3, 0), 0), ((4, 0), 1)):
        channels = 1 if axis is None else shape[axis]
        x = torch.zeros(shape, requires_grad=True)
        scale = torch.ones(channels, requires_grad=True)
        y = fake_quantize(x, scale, torch.zeros(channels), 0, 255, axis)
        y.sum().backward()
        assert y.shape == x.shape
        assert scale.grad.tolist() == [0.0] * channels


def test_backward_keeps_the_input_and_nothing_of_its_size():
    saved = []
    x = torch.randn(64, 128, 8, 8, requires_grad=True)
    scale = torch.full((128,), 0.1, requires_grad=True)
    zero_point = torch.zeros(128, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        y = fake_quantize(x, scale, zero_point, -8, 7, 1)
    assert [t.numel() for t in saved] == [x.numel(), 128, 128]
    assert saved[0].data_ptr() == x.data_ptr()

    grad = torch.ones_like(y)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as run:
        y.backward(grad)
    allocated = [
        event.cpu_memory_usage for event in run.events() if event.cpu_memory_usage >= x.nbytes
    ]
    assert max(allocated) < 1.5 * x.nbytes  # dx, and no temporary of its size


def test_a_second_derivative_is_an_error():
    x = torch.randn(8, requires_grad=True)
    y = fake_quantize(x, torch.tensor(0.1), torch.tensor(0.0), -8, 7)
    (dx,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="fake_quantize_backward"):
        dx.sum().backward()


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


def test_learned_scale_is_always_valid():
    raw = torch.tensor([0.5, -0.5, 0.0, float("nan"), INF, -INF, 1e-40], requires_grad=True)
    scale = learned_scale(raw)
    assert scale[:2].tolist() == [0.5, 0.5]
    assert bool(((scale >= 2.0**-64) & (scale <= 2.0**64)).all())
    scale.backward(torch.tensor([1.0, 1.0, 1.0, 1.0, INF, float("nan"), 1.0]))
    assert raw.grad.tolist() == [1, -1, 1, 1, 0, 0, 1]


def test_a_learned_scale_survives_a_hostile_optimizer():
    raw = torch.full((4,), 0.1, requires_grad=True)
    optimizer = torch.optim.SGD([raw], lr=10.0, momentum=0.9)
    for step in range(2000):
        x = torch.zeros(4, 8) if step % 3 == 0 else torch.randn(4, 8) * 10 ** (step % 7 - 3)
        y = fake_quantize(x, learned_scale(raw), torch.zeros(4), -8, 7, 0)
        optimizer.zero_grad()
        y.backward(torch.full_like(y, INF if step % 11 == 0 else 1.0))
        optimizer.step()
        assert torch.isfinite(y).all()
    assert torch.isfinite(raw).all()
