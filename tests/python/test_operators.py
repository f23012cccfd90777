"""What holds for every operator: layouts, dtypes, schemas, no data that is read where none is."""

import pytest
import torch
from operators import CALLS, DIFFERENTIABLE, Call, ops, qparams, tensors
from quantizers import MAKERS, SHAPE, calibrated
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._pytree import tree_map_only

DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]
LAYOUTS = {
    "0-d": lambda: torch.randn(()),
    "1-d": lambda: torch.randn(37),
    "contiguous": lambda: torch.randn(2, 5, 3, 4),
    "channels_last": lambda: torch.randn(2, 5, 3, 4).to(memory_format=torch.channels_last),
    "channels_last_3d": lambda: torch.randn(2, 5, 3, 4, 2).to(memory_format=torch.channels_last_3d),
    "transposed": lambda: torch.randn(4, 5, 3).transpose(0, 2),
    "every other": lambda: torch.randn(4, 10, 6)[::2, ::2, 1:],
    "offset": lambda: torch.randn(61)[1:].reshape(4, 5, 3),
    "expanded": lambda: torch.randn(4, 5, 1).expand(4, 5, 3),
    "empty": lambda: torch.randn(2, 5, 0),
    "no channel": lambda: torch.randn(2, 0, 3),
}


def dtypes_of(name: str) -> list[torch.dtype]:
    return [torch.float32, torch.float64] if name == "dorefa_weight" else DTYPES


def axis_of(granularity: str, x: Tensor) -> int | None:
    if granularity == "tensor":
        return None
    return min(1, x.dim() - 1)


@pytest.mark.parametrize("granularity", ["tensor", "axis"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", CALLS)
def test_a_layout_changes_nothing_but_strides(name, layout, granularity):
    for dtype in dtypes_of(name):
        x = (LAYOUTS[layout]() * 2).to(dtype)
        if x.dim() == 0 and granularity == "axis":
            return
        axis = axis_of(granularity, x)
        call, reference = CALLS[name](x, axis), CALLS[name](x.contiguous(), axis)
        results, expected = tensors(call()), tensors(reference())
        like_x = torch.empty_like(call.args[0])
        assert results[0].shape == x.shape
        assert results[0].stride() == like_x.stride()
        for result, other in zip(results, expected, strict=True):
            assert result.dtype == other.dtype
            if name == "seed":
                continue  # numbers go by positions in memory: tests of stochastic rounding
            if result.shape == x.shape or x.is_contiguous():
                torch.testing.assert_close(result, other, rtol=0, atol=0)
            else:  # sums, in another order
                torch.testing.assert_close(result, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", [name for name in DIFFERENTIABLE if name != "seed"])
def test_gradients_in_every_layout(name, layout):
    for dtype in (torch.float32, torch.float64):
        x = (LAYOUTS[layout]() * 2).to(dtype)
        grads = []
        for source in (x, x.contiguous()):
            leaf = source.detach().requires_grad_()
            y = tensors(CALLS[name](leaf, axis_of("axis" if x.dim() else "tensor", x))())[0]
            y.backward(torch.ones_like(source).cumsum(-1) if x.dim() else torch.ones_like(y))
            assert leaf.grad.dtype == dtype
            grads.append(leaf.grad)
        # DoReFa's gradient has a sum for the largest magnitude in it.
        exact = name != "dorefa_weight"
        torch.testing.assert_close(*grads, rtol=0 if exact else 1e-5, atol=0 if exact else 1e-5)


@pytest.mark.parametrize(
    ("name", "dtype"), [(name, dtype) for name in CALLS for dtype in dtypes_of(name)]
)
def test_results_have_the_dtype_of_x_under_autocast_too(name, dtype):
    call = CALLS[name](torch.randn(4, 6).to(dtype), 1)
    plain = tensors(call())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under_autocast = tensors(call())
    for a, b in zip(under_autocast, plain, strict=True):
        assert a.dtype == b.dtype
        assert torch.equal(a, b)
    expected = torch.int8 if name == "quantize" else dtype
    assert plain[0].dtype == expected


@pytest.mark.parametrize("kind", MAKERS)
def test_parameters_stay_float32_under_autocast(kind):
    module = calibrated(MAKERS[kind]())
    layer = torch.nn.Linear(SHAPE[1], SHAPE[1])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        x = layer(torch.randn(SHAPE))
        assert x.dtype == torch.bfloat16
        if kind == "dorefa":
            x = x.float()  # weights are never cast by autocast
        y = module(x)
        assert y.dtype == x.dtype
    y.float().square().sum().backward()
    for parameter in module.parameters():
        assert parameter.dtype == torch.float32
        if parameter.requires_grad:
            assert parameter.grad.dtype == torch.float32
    for buffer in module.buffers():
        assert buffer.dtype in (torch.float32, torch.int64)


def others() -> dict[str, Call]:
    """The operators that take no x."""
    raw = torch.tensor([0.5, -0.5, 0.0])
    codes = torch.tensor([[1, -2, 7, -8, 0]], dtype=torch.int8)
    return {
        "learned_scale": Call(ops.learned_scale.default, (raw,)),
        "learned_scale_backward": Call(ops.learned_scale_backward.default, (torch.ones(3), raw)),
        "learned_zero_point": Call(ops.learned_zero_point.default, (raw,)),
        "power_of_two_scale": Call(ops.power_of_two_scale.default, (torch.tensor([0.7, 3.0]),)),
        "pack_codes": Call(ops.pack_codes.default, (codes, 4)),
        "unpack_codes": Call(
            ops.unpack_codes.default, (torch.zeros(1, 3, dtype=torch.uint8), 4, 5, True)
        ),
    }


def learning(call: Call) -> Call:
    """The same call with every float tensor requiring a gradient."""

    def learn(t: Tensor) -> Tensor:
        return t.detach().clone().requires_grad_() if t.is_floating_point() else t

    return Call(call.op, *tree_map_only(Tensor, learn, (call.args, call.kwargs)))


# opcheck's own: it looks at what is inside a composite operator.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.parametrize("granularity", ["tensor", "axis"])
@pytest.mark.parametrize("name", CALLS)
def test_opcheck(name, granularity):
    call = CALLS[name](torch.randn(4, 5), axis_of(granularity, torch.randn(4, 5)))
    if name in DIFFERENTIABLE:
        call = learning(call)
    if name == "out":
        # Torch does not compile operators that return what they write to.
        kinds = ("test_schema", "test_autograd_registration", "test_faketensor")
        torch.library.opcheck(*call, test_utils=kinds)
    else:
        torch.library.opcheck(*call)


@pytest.mark.parametrize("name", others())
def test_opcheck_of_what_takes_no_x(name):
    call = others()[name]
    torch.library.opcheck(*call)
    if name in ("learned_scale", "learned_zero_point", "power_of_two_scale"):
        torch.library.opcheck(*learning(call))


def test_every_operator_is_among_the_cases():
    """Add a call to operators.py for a new operator: the tests here then cover it."""
    covered = {str(CALLS[name](torch.randn(2, 3), 1).op) for name in CALLS}
    covered |= {str(call.op) for call in others().values()}
    schemas = torch._C._jit_get_all_schemas()
    names = {
        f"{s.name.replace('::', '.')}.{s.overload_name or 'default'}"
        for s in schemas
        if s.name.startswith("qatx::")
    }
    elsewhere = {"qatx.run_program.default"}  # tests of the converter
    assert covered == names - elsewhere


def assert_same_layouts(actual, expected) -> None:
    for a, e in zip(tensors(actual), tensors(expected), strict=True):
        assert (a.shape, a.stride(), a.dtype) == (e.shape, e.stride(), e.dtype)


@pytest.mark.parametrize("granularity", ["tensor", "axis"])
@pytest.mark.parametrize("name", CALLS)
def test_shapes_need_no_data(name, granularity):
    """Meta tensors have none, fake tensors refuse to show any: a kernel that reads is an error."""
    x = torch.randn(2, 5, 3, 4).to(memory_format=torch.channels_last)
    call = CALLS[name](x, axis_of(granularity, x))
    expected = call()
    on_meta = Call(call.op, *tree_map_only(Tensor, lambda t: t.to("meta"), call[1:]))
    assert all(t.is_meta for t in tensors(on_meta()))
    assert_same_layouts(on_meta(), expected)
    with FakeTensorMode() as mode:
        fake = Call(call.op, *tree_map_only(Tensor, mode.from_tensor, call[1:]))
        assert_same_layouts(fake(), expected)


@pytest.mark.parametrize("name", others())
def test_shapes_need_no_data_where_there_is_no_x(name):
    call = others()[name]
    expected = call()
    on_meta = Call(call.op, *tree_map_only(Tensor, lambda t: t.to("meta"), call[1:]))
    assert_same_layouts(on_meta(), expected)
    with FakeTensorMode() as mode:
        fake = Call(call.op, *tree_map_only(Tensor, mode.from_tensor, call[1:]))
        assert_same_layouts(fake(), expected)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("kind", MAKERS)
def test_modules_read_no_data(kind, training):
    module = calibrated(MAKERS[kind]()).train(training)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        x = mode.from_tensor(torch.randn(SHAPE, requires_grad=True))
        y = module(x)
        assert (y.shape, y.dtype) == (x.shape, x.dtype)
        y.sum().backward()
        assert x.grad.shape == x.shape


@pytest.mark.parametrize("kind", MAKERS)
def test_modules_run_on_meta(kind):
    module = calibrated(MAKERS[kind]()).to("meta")
    y = module(torch.randn(SHAPE, device="meta", requires_grad=True))
    assert y.is_meta
    y.sum().backward()
    assert all(p.grad.shape == p.shape for p in module.parameters() if p.requires_grad)


def test_out_is_written_in_place_and_in_any_layout():
    x = torch.randn(4, 6)
    scale, zero_point = qparams(x, 1)
    expected = ops.fake_quantize(x, scale, zero_point, -8, 7, 1)
    for place in (torch.empty(4, 6), torch.empty(6, 4).t(), torch.empty(4, 12)[:, ::2], x.clone()):
        version = place._version
        result = ops.fake_quantize(x, scale, zero_point, -8, 7, 1, out=place)
        assert result is place
        assert place._version > version
        assert torch.equal(place, expected)
    assert torch.equal(ops.fake_quantize(x, scale, zero_point, -8, 7, 1, out=x), expected)
    assert torch.equal(x, expected)
