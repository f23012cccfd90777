import copy
import pickle

import pytest
import qatx
import torch
import torch.nn.functional as F
from models import Residual, layers, learn_statistics, quantized_values, randomize_batch_norm
from qatx import QConfig, QuantSpec
from torch import nn


class Function(nn.Module):
    """A model whose forward is a function of the model and the input."""

    def __init__(self, forward, **modules: nn.Module) -> None:
        super().__init__()
        self.function = forward
        for name, module in modules.items():
            self.add_module(name, module)

    def forward(self, x):
        return self.function(self, x)


def conv(cin: int = 3, cout: int = 3, **arguments) -> nn.Conv2d:
    return nn.Conv2d(cin, cout, 3, padding=1, **arguments)


def equal_without_quantization(model: nn.Module, prepared: nn.Module, *inputs: torch.Tensor):
    """The prepared model computes what the float model does, but for the order of operations."""
    model, prepared = copy.deepcopy(model).eval(), copy.deepcopy(prepared).eval()
    for module in prepared.modules():
        if isinstance(module, qatx.nn.FakeQuantize):
            module.begin_calibration()
    torch.testing.assert_close(prepared(*inputs), model(*inputs), rtol=1e-4, atol=1e-5)


def prepare(model: nn.Module, *inputs: torch.Tensor, **arguments) -> torch.fx.GraphModule:
    prepared = qatx.prepare(model, **arguments)
    equal_without_quantization(model, prepared, *(inputs or (torch.randn(2, 3, 8, 8),)))
    return prepared


def test_residual_network():
    model = randomize_batch_norm(Residual())
    prepared = prepare(model)
    assert layers(prepared) == {
        "stem.0": "ConvBn2d+relu",
        "conv1": "ConvBn2d+relu",
        "conv2": "ConvBn2d",
        "add": "Add+relu",
        "fc": "Linear",
    }
    # conv2 has none: the addition is done inside it. fc is the model's output.
    assert quantized_values(prepared) == {
        "x_fake_quantize",
        "stem.0.output_fake_quantize",
        "conv1.output_fake_quantize",
        "add.output_fake_quantize",
        "pool_fake_quantize",
    }
    assert type(prepared).__name__ == "Residual"
    assert not [m for m in prepared.modules() if isinstance(m, nn.ReLU)]


def test_paths_of_parameters_stay():
    model = Residual()
    prepared = qatx.prepare(model)
    batch_norm = {"stem.1": "stem.0.bn", "bn1": "conv1.bn", "bn2": "conv2.bn"}
    state = prepared.state_dict()
    for name, value in model.state_dict().items():
        path, _, last = name.rpartition(".")
        moved = f"{batch_norm.get(path, path)}.{last}"
        assert torch.equal(state.pop(moved), value), moved
    assert not [name for name in state if "fake_quantize" not in name and "extra" not in name]


def test_the_float_model_is_untouched_and_nothing_is_shared():
    model = Residual()
    model.bn1.eval()
    modes = [module.training for module in model.modules()]
    before = copy.deepcopy(model.state_dict())
    prepared = qatx.prepare(model)
    assert [module.training for module in model.modules()] == modes
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)
    shared = {t.data_ptr() for t in model.state_dict().values()} & {
        t.data_ptr() for t in prepared.state_dict().values() if t.numel() > 1
    }
    assert not shared


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_stays(training):
    prepared = qatx.prepare(Residual().train(training))
    assert {module.training for module in prepared.modules()} == {training}


def test_no_random_number_is_drawn():
    state = torch.get_rng_state()
    model = Residual()
    torch.set_rng_state(state)
    qatx.prepare(model)
    assert torch.equal(state, torch.get_rng_state())


def test_state_is_defined_from_the_start():
    fresh = qatx.nn.ConvBn2d(3, 8, 3)
    state = qatx.prepare(Residual()).state_dict()
    for name, value in fresh.state_dict().items():
        if "fake_quantize" in name:
            assert torch.equal(state[f"stem.0.{name}"], value), name


def test_an_optimizer_made_early_has_all_that_is_learned():
    x = torch.rand(4, 3, 8, 8)
    prepared = qatx.prepare(learn_statistics(Residual(), x))
    optimizer = torch.optim.SGD(prepared.parameters(), lr=0.1)
    qatx.calibrate(prepared, x)
    before = {name: p.detach().clone() for name, p in prepared.named_parameters()}
    prepared.train()(x).square().sum().backward()
    optimizer.step()
    moved = {name for name, p in prepared.named_parameters() if not torch.equal(p, before[name])}
    # A zero point that sits at the end of its range where nothing is clipped has no gradient.
    assert {name for name in before if not name.endswith("zero_point")} <= moved


def test_fixed_scales_learn_weights_only():
    prepared = qatx.prepare(
        Residual(), QConfig(weight_quantizer="fixed", activation_quantizer="fixed")
    )
    qatx.calibrate(prepared, torch.rand(4, 3, 8, 8))
    names = {name for name, p in prepared.named_parameters() if not p.requires_grad}
    assert names == {n for n, _ in prepared.named_parameters() if "fake_quantize" in n}


def test_qconfig_reaches_every_layer():
    weight = QuantSpec(bits=4, axis=None)
    activation = QuantSpec(bits=6, signed=True, symmetric=True)
    prepared = qatx.prepare(Residual(), QConfig(weight=weight, activation=activation))
    specs = {"weight": set(), "activation": set()}
    for module in prepared.modules():
        if isinstance(module, qatx.nn.FakeQuantize):
            specs[module.role].add(module.spec)
    assert specs == {"weight": {weight}, "activation": {activation}}


RELUS = {
    "module": (lambda m, x: m.relu(m.conv(x)), {"relu": nn.ReLU()}, "+relu"),
    "in place": (lambda m, x: m.relu(m.conv(x)), {"relu": nn.ReLU(inplace=True)}, "+relu"),
    "relu6": (lambda m, x: m.relu(m.conv(x)), {"relu": nn.ReLU6()}, "+relu6"),
    "F.relu": (lambda m, x: F.relu(m.conv(x), inplace=True), {}, "+relu"),
    "F.relu6": (lambda m, x: F.relu6(m.conv(x)), {}, "+relu6"),
    "torch.relu": (lambda m, x: torch.relu(m.conv(x)), {}, "+relu"),
    "torch.relu_": (lambda m, x: torch.relu_(m.conv(x)), {}, "+relu"),
    "relu()": (lambda m, x: m.conv(x).relu(), {}, "+relu"),
    "relu_()": (lambda m, x: m.conv(x).relu_(), {}, "+relu"),
    "identity between": (
        lambda m, x: F.relu(m.identity(m.conv(x))),
        {"identity": nn.Identity()},
        "+relu",
    ),
    "over max pooling": (lambda m, x: F.relu(F.max_pool2d(m.conv(x), 2)), {}, "+relu"),
    "over more": (
        lambda m, x: F.relu(torch.flatten(m.drop(m.pool(m.conv(x))), 1)),
        {"drop": nn.Dropout2d(), "pool": nn.MaxPool2d(2)},
        "+relu",
    ),
    "relu6 over dropout": (lambda m, x: F.relu6(m.d(m.conv(x))), {"d": nn.Dropout()}, ""),
    "no relu": (lambda m, x: F.leaky_relu(m.conv(x)), {}, ""),
    "used elsewhere": (lambda m, x: (lambda y: F.relu(y) * y)(m.conv(x)), {}, ""),
    "pooled and used elsewhere": (
        lambda m, x: (lambda y: F.relu(F.max_pool2d(y, 2), inplace=True) * y.mean())(m.conv(x)),
        {},
        "",
    ),
}


@pytest.mark.parametrize("name", RELUS)
def test_relu_fuses(name):
    forward, modules, suffix = RELUS[name]
    prepared = prepare(Function(forward, conv=conv(), **modules))
    assert layers(prepared) == {"conv": "Conv2d" + suffix}
    left = any("relu" in str(node.target) for node in prepared.graph.nodes)
    assert left == (suffix == "")


ADDS = {
    "+": lambda a, b: a + b,
    "torch.add": torch.add,
    "add()": lambda a, b: a.add(b),
    "add_()": lambda a, b: a.add_(b),
}


@pytest.mark.parametrize("name", ADDS)
def test_add_fuses_with_relu(name):
    def forward(m, x):
        return m.second(F.relu(ADDS[name](m.relu(m.first(x)), x)))

    model = Function(forward, first=conv(), second=conv(), relu=nn.ReLU())
    prepared = prepare(model)
    assert layers(prepared) == {
        "first": "Conv2d+relu",
        "second": "Conv2d",
        name.removeprefix("torch.").strip("()").replace("+", "add"): "Add+relu",
    }


@pytest.mark.parametrize(
    "forward",
    [
        lambda m, x: m.conv(x) + 1,
        lambda m, x: torch.add(m.conv(x), x, alpha=2),
        lambda m, x: m.conv(x) + m.constant.weight,
        lambda m, x: m.conv(x).view(x.size(0) + x.size(1) - 3, -1),
        lambda m, x: m.conv(x).view(x.shape[0] + x.shape[1] - 3, -1),
        lambda m, x: (lambda y: y.add_(x) * y)(m.conv(x)),
    ],
)
def test_what_is_no_sum_of_two_values_stays(forward):
    prepared = prepare(Function(forward, conv=conv(), constant=nn.Linear(8, 8, bias=False)))
    assert layers(prepared) == {"conv": "Conv2d"}


def test_one_operand_stays_float_where_its_layer_can_add():
    # The later of two convolutions; the earlier one must be there by then.
    model = Function(lambda m, x: m.b(x) + m.a(x), a=conv(), b=conv())
    assert quantized_values(prepare(model)) == {"x_fake_quantize", "b.output_fake_quantize"}
    # A ReLU, or another user, is between the convolution and the addition.
    model = Function(lambda m, x: F.relu(m.a(x)) + x, a=conv())
    assert quantized_values(prepare(model)) == {"x_fake_quantize", "a.output_fake_quantize"}
    model = Function(lambda m, x: (lambda y: (y + x) * y)(m.a(x)), a=conv())
    assert quantized_values(prepare(model)) == {"x_fake_quantize", "a.output_fake_quantize"}
    # Both operands are the same value.
    model = Function(lambda m, x: (lambda y: y + y)(m.a(x)), a=conv())
    assert quantized_values(prepare(model)) == {"x_fake_quantize", "a.output_fake_quantize"}
    # Linear layers add too.
    model = Function(lambda m, x: x + m.fc(x), fc=nn.Linear(8, 8))
    assert quantized_values(prepare(model)) == {"x_fake_quantize"}


def test_values_are_quantized_once_where_they_are_made():
    def forward(m, x):
        x = m.pool(F.relu(m.a(x)))
        return m.fc(m.drop(x).flatten(1)), m.b(x)

    modules = {"a": conv(), "b": conv(), "drop": nn.Dropout(), "pool": nn.MaxPool2d(2)}
    prepared = prepare(Function(forward, fc=nn.Linear(48, 2), **modules))
    assert quantized_values(prepared) == {"x_fake_quantize", "a.output_fake_quantize"}


FUNCTIONS = {
    "read in integers": (lambda m, x: m.b(F.silu(m.a(x))), {"a.output", "silu"}),
    "behind pooling": (lambda m, x: m.b(F.silu(F.max_pool2d(m.a(x), 2))), {"a.output", "silu"}),
    "not read in integers": (lambda m, x: F.silu(m.a(x)), set()),
    "one of another": (lambda m, x: m.b(F.silu(m.a(x) * 2) - 1), {"a.output", "sub"}),
    "one of another that others read": (
        lambda m, x: (lambda y: m.b(y * torch.exp(y)))(F.silu(m.a(x))),
        {"a.output", "silu", "exp", "mul"},
    ),
    "a clamp": (lambda m, x: m.b(m.a(x).clamp(-1, 1)), {"clamp"}),
    "a clamp of a product": (
        lambda m, x: m.b((m.a(x) * x).clamp(-1, 1)),
        {"a.output", "clamp"},
    ),
    "a product": (lambda m, x: m.b(m.a(x) * x), {"a.output", "mul"}),
    "a product in place": (lambda m, x: m.b(m.a(x).mul_(x)), {"a.output", "mul_"}),
    "a product in place that others see": (
        lambda m, x: (lambda y: m.b(y.mul_(x) * y))(m.a(x)),
        {"mul_", "a.output", "mul"},
    ),
    "a product of which none is read in integers": (lambda m, x: m.a(x) * x, set()),
    "a product with a parameter": (lambda m, x: m.b(m.a(x) * m.a.bias[0]), {"a.output", "mul"}),
    "a product with a parameter for each channel": (
        lambda m, x: m.b(m.a(x) * m.a.bias.view(1, -1, 1, 1)),
        {"a.output", "mul"},
    ),
    "channels, then columns": (
        lambda m, x: m.b(
            torch.tanh(m.a(x[..., :3]) * m.a.bias.view(3, 1, 1)) + m.a.weight[0, 0, 0]
        ),
        {"a.output", "tanh", "add"},
    ),
    "a product with a matrix": (
        lambda m, x: m.b(m.a(x[..., :3, :3]) * m.a.weight[0, 0]),
        {"mul"},
    ),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_and_products_read_integers_where_integers_are_read(name):
    forward, expected = FUNCTIONS[name]
    prepared = prepare(Function(forward, a=conv(), b=conv()))
    values = {value.removesuffix("_fake_quantize") for value in quantized_values(prepared)}
    assert values == {"x"} | expected


def test_values_that_only_float_operators_use_are_not_quantized():
    prepared = prepare(Function(lambda m, x: torch.sigmoid(m.a(x)), a=conv()))
    assert quantized_values(prepared) == {"x_fake_quantize"}


def test_values_of_float_operators_are_quantized_for_integer_ones():
    prepared = prepare(Function(lambda m, x: m.a(torch.cumsum(x, 1)), a=conv()))
    assert quantized_values(prepared) == {"cumsum_fake_quantize"}


def test_an_output_that_an_integer_operator_uses_is_quantized():
    prepared = prepare(Function(lambda m, x: (lambda y: (y, m.b(y)))(m.a(x)), a=conv(), b=conv()))
    assert quantized_values(prepared) == {"x_fake_quantize", "a.output_fake_quantize"}
    qatx.calibrate(prepared, torch.randn(2, 3, 8, 8))
    y, _ = prepared(torch.randn(2, 3, 8, 8))
    assert torch.equal(prepared.a.output_fake_quantize(y), y)


class Pool(nn.Module):
    """An average pooling that is a function."""

    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


POOLS = {
    "AdaptiveAvgPool2d": nn.AdaptiveAvgPool2d(1),
    "AvgPool2d": nn.AvgPool2d(8),
    "F.adaptive_avg_pool2d": Pool(lambda x: F.adaptive_avg_pool2d(x, 1)),
    "F.avg_pool2d": Pool(lambda x: F.avg_pool2d(x, 8)),
    "mean()": Pool(lambda x: x.mean((2, 3))),
    "mean() from the end": Pool(lambda x: x.mean([-1, -2], keepdim=True)),
    "torch.mean": Pool(lambda x: torch.mean(x, dim=(3, 2))),
}


@pytest.mark.parametrize("name", POOLS)
def test_average_pooling_reads_integers_and_rounds_for_integers(name):
    modules = {"conv": conv(), "pool": POOLS[name]}
    model = Function(lambda m, x: m.fc(m.pool(m.conv(x)).flatten(1)), fc=nn.Linear(3, 2), **modules)
    values = quantized_values(prepare(model))
    assert {"x_fake_quantize", "conv.output_fake_quantize"} < values
    assert len(values) == 3
    # At the model's end the average stays float.
    model = Function(lambda m, x: m.pool(m.conv(x)), **modules)
    assert quantized_values(prepare(model)) == {"x_fake_quantize", "conv.output_fake_quantize"}


@pytest.mark.parametrize("dims", [{}, {"dim": 1}, {"dim": (1, 2)}, {"dim": (0, 2, 3)}])
def test_other_means_read_integers_where_integers_are_read(dims):
    prepared = prepare(Function(lambda m, x: m.conv(x).mean(**dims), conv=conv()))
    assert quantized_values(prepared) == {"x_fake_quantize"}
    model = Function(lambda m, x: m.b(x * m.a(x).mean(**dims, keepdim=True)), a=conv(), b=conv())
    if dims:
        assert {"a.output_fake_quantize", "mean_fake_quantize"} < quantized_values(prepare(model))


def test_max_pooling_with_indices_stays_float():
    pool = nn.MaxPool2d(2, return_indices=True)
    model = Function(lambda m, x: m.b(m.pool(m.a(x))[0]), a=conv(), b=conv(), pool=pool)
    assert quantized_values(prepare(model)) == {"x_fake_quantize", "getitem_fake_quantize"}


def with_hook(module: nn.Module) -> nn.Module:
    module.register_forward_hook(lambda _module, _inputs, y: y * 2)
    return module


class SubclassedConv(nn.Conv2d):
    def forward(self, x):
        return super().forward(x) * 2


@pytest.mark.parametrize(
    "layer",
    [
        conv(padding_mode="reflect"),
        nn.GroupNorm(3, 3),
        SubclassedConv(3, 3, 1),
        with_hook(conv()),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_other_layers_stay_float(layer):
    prepared = prepare(Function(lambda m, x: m.conv(m.layer(x)), conv=conv(), layer=layer))
    assert layers(prepared) == {"conv": "Conv2d"}


def test_functional_layers_stay_float():
    model = Function(lambda m, x: F.conv2d(m.conv(x), m.conv.weight), conv=conv())
    prepared = prepare(model)
    assert layers(prepared) == {"conv": "Conv2d"}
    assert quantized_values(prepared) == {"x_fake_quantize"}


BATCH_NORMS = {
    "alone": (lambda m, x: m.bn(m.conv(x)), nn.BatchNorm2d(3), "ConvBn2d"),
    "not affine": (lambda m, x: m.bn(m.conv(x)), nn.BatchNorm2d(3, affine=False), "ConvBn2d"),
    "no statistics": (
        lambda m, x: m.bn(m.conv(x)),
        nn.BatchNorm2d(3, track_running_stats=False),
        "Conv2d",
    ),
    "convolution used elsewhere": (
        lambda m, x: (lambda y: m.bn(y) * y)(m.conv(x)),
        nn.BatchNorm2d(3),
        "Conv2d",
    ),
    "called twice": (lambda m, x: m.bn(m.bn(m.conv(x))), nn.BatchNorm2d(3), "Conv2d"),
    "behind the relu": (lambda m, x: m.bn(F.relu(m.conv(x))), nn.BatchNorm2d(3), "Conv2d+relu"),
}


@pytest.mark.parametrize("name", BATCH_NORMS)
def test_batch_normalization_folds_where_it_can(name):
    forward, bn, kind = BATCH_NORMS[name]
    prepared = prepare(randomize_batch_norm(Function(forward, conv=conv(), bn=bn)))
    assert layers(prepared) == {"conv": kind}
    assert any(name == "bn" for name, _ in prepared.named_modules()) == (kind != "ConvBn2d")


def test_a_layer_called_twice_is_quantized_once_and_its_outputs_twice():
    model = Function(
        lambda m, x: m.last(F.relu(m.conv(F.relu(m.conv(x))))), conv=conv(), last=conv()
    )
    prepared = prepare(model)
    assert layers(prepared) == {"conv": "Conv2d", "last": "Conv2d"}
    assert quantized_values(prepared) == {
        "x_fake_quantize",
        "relu_fake_quantize",
        "relu_fake_quantize_1",
    }
    assert prepared.conv.output_fake_quantize is None
    x = torch.randn(2, 3, 8, 8)
    qatx.calibrate(prepared, x)
    prepared(x).sum().backward()
    assert prepared.conv.weight_fake_quantize.scale.grad.abs().sum() > 0


def test_a_layer_called_on_its_own_output():
    prepared = prepare(Function(lambda m, x: m.last(m.conv(m.conv(x))), conv=conv(), last=conv()))
    assert quantized_values(prepared) == {
        "x_fake_quantize",
        "conv_fake_quantize",
        "conv_fake_quantize_1",
    }


def test_a_layer_called_twice_with_batch_normalization():
    bns = {"bn1": nn.BatchNorm2d(3), "bn2": nn.BatchNorm2d(3)}
    model = Function(lambda m, x: m.bn2(m.conv(m.bn1(m.conv(x)))), conv=conv(), **bns)
    prepared = prepare(randomize_batch_norm(model))
    assert layers(prepared) == {"conv": "Conv2d"}
    assert quantized_values(prepared) == {
        *("x_fake_quantize", "conv_fake_quantize", "bn1_fake_quantize")
    }


def test_tied_weights_stay_tied():
    model = Function(lambda m, x: m.b(m.a(x)), a=nn.Linear(8, 8), b=nn.Linear(8, 8))
    model.b.weight = model.a.weight
    prepared = prepare(model)
    assert prepared.a.weight is prepared.b.weight
    assert prepared.a.weight is not model.a.weight


def test_several_inputs_and_outputs():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = conv(), conv()

        def forward(self, x, y, scale=2.0):
            return {"sum": self.a(x) + self.b(y), "y": y * scale}

    prepared = qatx.prepare(Two())
    assert quantized_values(prepared) == {
        "x_fake_quantize",
        "y_fake_quantize",
        "a.output_fake_quantize",
    }
    x, y = torch.randn(2, 2, 3, 8, 8)
    qatx.calibrate(prepared, [(x, y)], forward=lambda model, batch: model(*batch))
    assert prepared(x, y)["sum"].shape == x.shape
    operations = [node.op for node in prepared.graph.nodes]
    assert operations[:4] == ["placeholder"] * 3 + ["call_module"]


def test_inputs_may_be_named_like_operators():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = conv()

        def forward(self, flatten):
            return self.conv(flatten)

    assert quantized_values(prepare(Model())) == {"flatten_fake_quantize"}


def test_names_say_where_a_value_is_made_and_collide_with_nothing():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = conv()
            self.add = nn.Sigmoid()

        def forward(self, x):
            return self.add(self.conv(x) + torch.tanh(x))

    prepared = prepare(nn.Sequential(Block(), Block()))
    assert set(layers(prepared)) == {"0.conv", "0.add_1", "1.conv", "1.add_1"}
    assert {"0.tanh_fake_quantize", "1.tanh_fake_quantize"} < quantized_values(prepared)


@pytest.mark.parametrize("mode_at_prepare", [True, False])
def test_functional_dropout_follows_the_mode_of_the_prepared_model(mode_at_prepare):
    def forward(m, x):
        return F.dropout(m.conv(x), 0.5, m.training)

    prepared = prepare(Function(forward, conv=conv()).train(mode_at_prepare))
    qatx.calibrate(prepared, torch.rand(2, 3, 8, 8))
    x = torch.randn(2, 3, 8, 8)
    assert (prepared.train()(x) == 0).float().mean() > 0.3
    assert (prepared.eval()(x) == 0).float().mean() < 0.1


def test_dropout_that_is_always_on_stays_so():
    prepared = qatx.prepare(Function(lambda m, x: F.dropout(m.conv(x)), conv=conv()))
    x = torch.randn(2, 3, 8, 8)
    qatx.calibrate(prepared, x)
    assert (prepared.eval()(x) == 0).float().mean() > 0.3


def test_the_graph_does_not_depend_on_the_mode():
    def forward(m, x):
        return (m.a(x), m.b(x)) if m.training else m.a(x)

    model = Function(forward, a=conv(), b=conv())
    codes = {qatx.prepare(model.train(mode)).code for mode in (True, False)}
    assert len(codes) == 1
    assert "self.b" not in codes.pop()


def test_subclasses_of_batch_normalization_follow_the_mode():
    class BatchNorm(nn.BatchNorm2d):
        def forward(self, x):
            return F.batch_norm(
                x, self.running_mean, self.running_var, training=self.training, momentum=0.1
            )

    prepared = prepare(Function(lambda m, x: m.bn(m.conv(x)), conv=conv(), bn=BatchNorm(3)))
    qatx.calibrate(prepared, torch.rand(2, 3, 8, 8))
    before = prepared.bn.running_mean.clone()
    prepared.eval()(torch.rand(2, 3, 8, 8))
    assert torch.equal(prepared.bn.running_mean, before)
    prepared.train()(torch.rand(2, 3, 8, 8))
    assert not torch.equal(prepared.bn.running_mean, before)


def test_evaluation_moves_nothing_and_training_moves_only_batch_normalization():
    prepared = qatx.prepare(Residual())
    qatx.calibrate(prepared, torch.randn(4, 3, 8, 8))
    before = copy.deepcopy(prepared.state_dict())
    prepared.eval()(torch.randn(4, 3, 8, 8) * 10)
    torch.testing.assert_close(prepared.state_dict(), before, rtol=0, atol=0)
    prepared.train()(torch.randn(4, 3, 8, 8) * 10)
    after = prepared.state_dict()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == {name for name in before if "running" in name or "num_batches" in name}


@pytest.mark.parametrize("way", ["deepcopy", "pickle", "state_dict"])
def test_a_trained_model_is_carried_over(way):
    prepared = qatx.prepare(Residual())
    x = torch.randn(4, 3, 8, 8)
    qatx.calibrate(prepared, x)
    optimizer = torch.optim.SGD(prepared.parameters(), lr=0.1)
    prepared.train()(x).square().mean().backward()
    optimizer.step()
    qatx.freeze_batch_norm(prepared)
    if way == "deepcopy":
        other = copy.deepcopy(prepared)
    elif way == "pickle":
        other = pickle.loads(pickle.dumps(prepared))
    else:
        other = qatx.prepare(Residual())
        other.load_state_dict(prepared.state_dict())
    for mode in (True, False):
        assert torch.equal(other.train(mode)(x), prepared.train(mode)(x))


def test_quantization_error_is_small_after_calibration():
    model = randomize_batch_norm(Residual()).eval()
    prepared = qatx.prepare(model)
    x = torch.randn(64, 3, 8, 8)
    qatx.calibrate(prepared, x)
    error = (prepared(x) - model(x)).square().mean() / model(x).var()
    assert 1e-7 < error < 1e-3


def test_a_prepared_model_compiles_and_exports():
    prepared = qatx.prepare(Residual())
    x = torch.randn(4, 3, 8, 8)
    qatx.calibrate(prepared, x)
    prepared.eval()
    expected = prepared(x)
    compiled = torch.compile(prepared, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), expected)
    torch.testing.assert_close(torch.export.export(prepared, (x,)).module()(x), expected)


class TestBadInput:
    def test_not_a_module(self):
        with pytest.raises(TypeError, match=r"model must be a torch\.nn\.Module, got function"):
            qatx.prepare(lambda x: x)

    def test_not_a_qconfig(self):
        with pytest.raises(TypeError, match=r"qconfig must be a qatx\.QConfig, got 8"):
            qatx.prepare(Residual(), 8)

    def test_prepared_already(self):
        prepared = qatx.prepare(Residual())
        with pytest.raises(ValueError, match=r"prepared already: stem\.0 is a ConvBn2d"):
            qatx.prepare(prepared)
        with pytest.raises(ValueError, match="prepared already: 1 is a Linear"):
            qatx.prepare(nn.Sequential(conv(), qatx.nn.Linear(8, 8)))

    def test_cannot_be_traced(self):
        model = Function(lambda m, x: m.conv(x) if x.sum() > 0 else x, conv=conv())
        with pytest.raises(RuntimeError, match=r"cannot trace Function: .*control flow") as error:
            qatx.prepare(model)
        assert isinstance(error.value.__cause__, torch.fx.proxy.TraceError)
        assert model.training

    def test_nothing_to_quantize(self):
        with pytest.raises(ValueError, match="Sequential has nothing to quantize"):
            qatx.prepare(nn.Sequential(nn.Sigmoid()))

    @pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
    def test_other_dtypes(self, dtype):
        message = rf"prepare: 0\.conv: Conv2d: the weight must be float32, got {dtype}"
        model = nn.Sequential(Function(lambda m, x: m.conv(x), conv=conv())).to(dtype)
        with pytest.raises(ValueError, match=message):
            qatx.prepare(model)


def test_what_is_normalized_is_quantized_where_others_read_it():
    """tests/cpp/model/model_test.cpp has the same network."""

    class Normalizing(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(6, 8), nn.Linear(8, 8)
            self.last = nn.Linear(8, 3)

        def forward(self, x):
            y = self.first(x)
            z = self.second(F.layer_norm(y, (8,)))
            p = torch.softmax(z, -1)
            return torch.cat([self.last(p), torch.sin(z)], -1)

    assert quantized_values(qatx.prepare(Normalizing())) == {
        "x_fake_quantize",
        "layer_norm_fake_quantize",
        "second.output_fake_quantize",
        "softmax_fake_quantize",
    }
