"""What PyTorch does with functions: compile, export, trace, torch.func, checkpoint."""

import copy
import io

import pytest
import torch
from operators import CALLS, DIFFERENTIABLE, ops, tensors
from quantizers import MAKERS, SHAPE, calibrated
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

# Torch does not functionalize operators that return what they write to.
FUNCTIONAL = [name for name in CALLS if name != "out"]
# vmap calls the operators once for each element of a batch, and says that this is slow.
SLOW_VMAP = "ignore:There is a performance drop:UserWarning"


class Operator(nn.Module):
    """An operator with its parameters as a module."""

    def __init__(self, name: str, x: Tensor, axis: int | None) -> None:
        super().__init__()
        self.call = CALLS[name](x, axis)
        self.position = [i for i, a in enumerate(self.call.args) if a is x or name == "dequantize"]

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        args = list(self.call.args)
        args[self.position[0]] = x
        return tensors(self.call.op(*args, **self.call.kwargs))


def operator_and_input(name: str, axis: int | None) -> tuple[Operator, Tensor]:
    x = torch.randn(4, 6)
    module = Operator(name, x, axis)
    return module, module.call.args[module.position[0]]


def gradients(module: nn.Module, x: Tensor) -> list[Tensor]:
    """The result, the gradient of x, and those of the parameters."""
    leaf = x.detach().clone().requires_grad_()
    parameters = [p for p in module.parameters() if p.requires_grad]
    y = module(leaf)
    y = y if isinstance(y, Tensor) else y[0]
    return [y, *torch.autograd.grad(y.square().sum(), [leaf, *parameters])]


def assert_equal(actual: list[Tensor], expected: list[Tensor]) -> None:
    for a, e in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, e, rtol=0, atol=0)


@pytest.fixture(autouse=True)
def _forget_what_was_compiled():
    torch._dynamo.reset()


@pytest.mark.parametrize("axis", [None, 1])
@pytest.mark.parametrize("name", FUNCTIONAL)
def test_operators_compile_without_a_break(name, axis):
    module, x = operator_and_input(name, axis)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    assert_equal(compiled(x), module(x))
    if name in DIFFERENTIABLE:
        assert_equal(gradients(compiled, x), gradients(module, x))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("kind", MAKERS)
def test_modules_compile_without_a_break(kind, training):
    module = calibrated(MAKERS[kind]()).train(training)
    twin = copy.deepcopy(module)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    x = torch.randn(SHAPE)
    for _ in range(2):  # ranges that move do so in both
        results = []
        for function in (compiled, twin):
            torch.manual_seed(1)
            results.append(gradients(function, x))
        assert_equal(*results)
    torch.testing.assert_close(module.state_dict(), twin.state_dict(), rtol=0, atol=0)


def test_sizes_are_dynamic_when_compiled():
    module = calibrated(MAKERS["lsq"]())
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager", dynamic=True)
    for size in (3, 7, 12):
        x = torch.randn(size, 5)
        assert torch.equal(compiled(x), module(x))


@pytest.mark.parametrize("axis", [None, 1])
@pytest.mark.parametrize("name", FUNCTIONAL)
def test_operators_export(name, axis):
    module, x = operator_and_input(name, axis)
    exported = torch.export.export(module, (x,)).module()
    assert_equal(exported(x), module(x))


@pytest.mark.parametrize("kind", MAKERS)
def test_modules_export(kind):
    module = calibrated(MAKERS[kind]()).eval()
    batch = torch.export.Dim("batch", min=2)
    is_weight = module.role == "weight"
    exported = torch.export.export(
        module, (torch.randn(SHAPE),), dynamic_shapes=None if is_weight else ({0: batch},)
    )
    buffer = io.BytesIO()
    torch.export.save(exported, buffer)
    buffer.seek(0)
    loaded = torch.export.load(buffer).module()
    x = torch.randn(SHAPE if is_weight else (9, SHAPE[1]))
    assert torch.equal(loaded(x), module(x))


def saved_and_loaded(traced: torch.jit.ScriptModule) -> torch.jit.ScriptModule:
    buffer = io.BytesIO()
    torch.jit.save(traced, buffer)
    buffer.seek(0)
    return torch.jit.load(buffer)


@pytest.mark.parametrize("axis", [None, 1])
@pytest.mark.parametrize("name", FUNCTIONAL)
def test_operators_trace(name, axis):
    module, x = operator_and_input(name, axis)
    loaded = saved_and_loaded(torch.jit.trace(module, x))
    other = x.flip(0)
    assert_equal(loaded(other), module(other))


@pytest.mark.parametrize("kind", MAKERS)
def test_modules_trace(kind):
    module = calibrated(MAKERS[kind]()).eval().requires_grad_(requires_grad=False)
    loaded = saved_and_loaded(torch.jit.trace(module, torch.randn(SHAPE)))
    x = torch.randn(SHAPE)
    assert torch.equal(loaded(x), module(x))


@pytest.mark.filterwarnings(SLOW_VMAP)
@pytest.mark.parametrize("axis", [None, 0])
@pytest.mark.parametrize("name", FUNCTIONAL)
def test_vmap_is_a_loop(name, axis):
    batch = torch.randn(3, 4, 6)
    module = Operator(name, batch[0].clone(), axis)
    batch = batch.to(module.call.args[module.position[0]].dtype)
    expected = [torch.stack(results) for results in zip(*map(module, batch), strict=True)]
    assert_equal(list(torch.func.vmap(module)(batch)), expected)


@pytest.mark.filterwarnings(SLOW_VMAP)
@pytest.mark.parametrize("axis", [None, 0])
@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_gradients_of_each_sample(name, axis):
    batch = torch.randn(3, 4, 6)
    module = Operator(name, batch[0].clone(), axis)

    def loss(x: Tensor) -> Tensor:
        return module(x)[0].square().sum()

    expected = torch.stack([gradients(module, x)[1] for x in batch])
    assert torch.equal(torch.func.grad(loss)(batch[0]), expected[0])
    # DoReFa's largest magnitude is a sum in another order.
    tolerance = 1e-5 if name == "dorefa_weight" else 0
    torch.testing.assert_close(
        torch.func.vmap(torch.func.grad(loss))(batch), expected, rtol=tolerance, atol=tolerance
    )


@pytest.mark.filterwarnings(SLOW_VMAP)
def test_scale_gradients_of_each_sample():
    batch, scale, zero_point = torch.randn(3, 4, 6), torch.full((4,), 0.2), torch.zeros(4)

    def loss(scale: Tensor, x: Tensor) -> Tensor:
        y = ops.fake_quantize(x, ops.learned_scale(scale), zero_point, -8, 7, 0)
        return y.square().sum()

    each = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(scale, batch)
    for x, gradient in zip(batch, each, strict=True):
        assert torch.equal(gradient, torch.func.grad(loss)(scale, x))
    assert not torch.equal(each[0], each[1])


class Checkpointed(nn.Module):
    def __init__(self, module: nn.Module, use_reentrant: bool) -> None:
        super().__init__()
        self.module = module
        self.use_reentrant = use_reentrant

    def forward(self, x: Tensor) -> Tensor:
        # Not a leaf: the old kind of checkpoint needs an input that does not go straight through.
        return checkpoint(self.module, x * 1, use_reentrant=self.use_reentrant)


def backward(module: nn.Module, x: Tensor) -> list[Tensor]:
    """`gradients` in the one way that the old kind of checkpoint allows."""
    leaf = x.detach().clone().requires_grad_()
    module.zero_grad()
    y = module(leaf)
    y = y if isinstance(y, Tensor) else y[0]
    y.square().sum().backward()
    return [y.detach(), leaf.grad, *(p.grad for p in module.parameters() if p.requires_grad)]


@pytest.mark.parametrize("use_reentrant", [False, True])
@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_operators_are_recomputed_alike(name, use_reentrant):
    module, x = operator_and_input(name, 1)
    assert_equal(backward(Checkpointed(module, use_reentrant), x), backward(module, x))


@pytest.mark.parametrize("use_reentrant", [False, True])
@pytest.mark.parametrize("kind", [kind for kind in MAKERS if kind != "moving_average"])
def test_modules_are_recomputed_alike(kind, use_reentrant):
    """Stochastic rounding too: the recomputation draws the same seed."""
    results = []
    for wrap in (lambda m: Checkpointed(m, use_reentrant), lambda m: m):
        module = wrap(calibrated(MAKERS[kind]()))
        torch.manual_seed(3)
        results.append(backward(module, torch.linspace(-3, 3, 150).reshape(SHAPE)))
    assert_equal(*results)


def test_a_moving_range_moves_again_when_it_is_recomputed():
    """As the statistics of batch normalization do; the class says so. (The new kind of checkpoint
    stops in time where nothing behind the quantizer is recomputed.)"""
    x = torch.linspace(-300, 300, 150).reshape(SHAPE)
    module, twice = (calibrated(MAKERS["moving_average"]()) for _ in range(2))
    backward(Checkpointed(module, use_reentrant=True), x)
    twice(x)
    twice(x)
    torch.testing.assert_close(module.state_dict(), twice.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize("kind", MAKERS)
def test_modules_export_in_training_mode(kind):
    module = calibrated(MAKERS[kind]())
    twin = copy.deepcopy(module)
    x = torch.randn(SHAPE)
    exported = torch.export.export(module, (x,)).module()
    results = []
    for function in (exported, twin):
        torch.manual_seed(1)
        results.append(gradients(function, x))
    assert_equal(*results)
    moved = dict(exported.named_buffers())
    for name, buffer in twin.named_buffers():
        torch.testing.assert_close(moved.get(name, buffer), buffer, rtol=0, atol=0)
