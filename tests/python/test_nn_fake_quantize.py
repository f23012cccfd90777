import copy
import io
import math
import pickle

import pytest
import torch
from qatx import QuantSpec
from qatx.nn import FakeQuantize

ACTIVATION = QuantSpec(bits=8, signed=False, symmetric=False)
WEIGHT = QuantSpec(bits=4, axis=0)


def activation(**arguments) -> FakeQuantize:
    return FakeQuantize(ACTIVATION, role="activation", **arguments)


def weight(channels: int = 3, **arguments) -> FakeQuantize:
    return FakeQuantize(WEIGHT, role="weight", scale_shape=(channels,), **arguments)


def calibrated(module: FakeQuantize, *values: torch.Tensor) -> FakeQuantize:
    module.begin_calibration()
    for value in values:
        module(value)
    module.finish_calibration()
    return module


def assert_same(actual, expected) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=0)


def test_state_has_its_shape_from_construction():
    shapes = {name: tuple(value.shape) for name, value in weight(3).state_dict().items()}
    assert shapes == {
        "scale": (3,),
        "zero_point": (3,),
        "_extra_state": (),
    }
    assert all(value.shape == () for value in activation().state_dict().values())


def test_parameters_are_what_is_learned():
    assert {name for name, _ in activation().named_parameters()} == {"scale", "zero_point"}
    assert {name for name, _ in weight().named_parameters()} == {"scale"}  # symmetric
    assert all(p.requires_grad for p in activation().parameters())
    assert not any(p.requires_grad for p in activation(learn_scale=False).parameters())


def test_an_uncalibrated_module_says_what_to_do():
    with pytest.raises(RuntimeError, match=r"no scale yet: call qatx\.calibrate"):
        activation()(torch.rand(3))
    for change in (activation().freeze, activation().unfreeze):
        with pytest.raises(RuntimeError, match=r"call qatx\.calibrate"):
            change()


def test_calibration_passes_through_and_takes_the_range_of_all_batches():
    module = activation()
    module.begin_calibration()
    for x in (torch.tensor([0.5, -1.0]), torch.tensor([[3.0, 0.0]]), torch.empty(0, 4)):
        assert module(x) is x
    module.finish_calibration()
    assert module.state == "train"
    torch.testing.assert_close(module.scale.item(), 4 / 255)
    assert module.zero_point.item() == round(1 / (4 / 255))
    torch.testing.assert_close(
        module(torch.tensor([-9.0, 0.0, 9.0])),
        torch.tensor([-64.0, 0.0, 191.0]) * (4 / 255),
    )


def test_calibration_is_per_channel():
    x = torch.tensor([[1.0, -7.0], [0.5, 0.25], [0.0, 0.0]])
    module = calibrated(weight(3), x)
    torch.testing.assert_close(module.scale.data, torch.tensor([1.0, 0.5 / 7, 1.0]))
    assert module.zero_point.tolist() == [0, 0, 0]


def test_axis_may_count_from_the_end():
    spec = QuantSpec(axis=-1)
    module = FakeQuantize(spec, role="weight", scale_shape=(2,))
    calibrated(module, torch.tensor([[127.0, 1.0], [0.0, 254.0]]))
    torch.testing.assert_close(module.scale.data, torch.tensor([1.0, 2.0]))


def test_calibration_starts_anew():
    module = calibrated(activation(), torch.tensor([255.0]))
    calibrated(module, torch.tensor([510.0]))
    assert module.scale.item() == 2
    calibrated(module, torch.tensor([255.0]))
    assert module.scale.item() == 1


def test_calibration_leaves_out_what_is_not_finite():
    x = torch.tensor([math.nan, math.inf, 255.0, -math.inf])
    assert calibrated(activation(), x).scale.item() == 1
    x = torch.tensor([[math.nan, 7.0], [14.0, math.inf], [-math.inf, -21.0]])
    torch.testing.assert_close(calibrated(weight(3), x).scale.data, torch.tensor([1.0, 2.0, 3.0]))


@pytest.mark.parametrize("x", [torch.full((4,), math.nan), torch.empty(0), None])
def test_calibration_needs_a_finite_value(x):
    module = activation()
    module.begin_calibration()
    if x is not None:
        module(x)
    with pytest.raises(ValueError, match="no finite value was observed"):
        module.finish_calibration()
    assert module.state == "calibrate"


def test_calibration_counts_channels_without_a_finite_value():
    module = weight(3)
    module.begin_calibration()
    module(torch.tensor([[1.0], [math.inf], [math.nan]]))
    with pytest.raises(ValueError, match="in 2 of 3 channels"):
        module.finish_calibration()


def test_calibration_refuses_other_types_and_shapes():
    module = weight(3)
    module.begin_calibration()
    with pytest.raises(TypeError, match=r"must be torch\.float32, got torch\.float64"):
        module(torch.rand(3, 2, dtype=torch.float64))
    with pytest.raises(ValueError, match=r"scales of shape \(3,\) .*, got shape \(4, 2\)"):
        module(torch.rand(4, 2))


def test_calibration_ignores_layout():
    x = torch.randn(2, 5, 4, 3)
    spec = QuantSpec(axis=1)
    scales = [
        calibrated(FakeQuantize(spec, role="weight", scale_shape=(5,)), y).scale.data
        for y in (x, x.to(memory_format=torch.channels_last))
    ]
    torch.testing.assert_close(scales[0], x.abs().amax((0, 2, 3)) / 127)
    assert torch.equal(*scales)


@pytest.mark.parametrize("training", [True, False])
def test_nothing_moves_but_by_an_optimizer(training):
    module = calibrated(activation(), torch.rand(8)).train(training)
    before = copy.deepcopy(module.state_dict())
    for _ in range(3):
        module(torch.randn(8) * 100)
    assert_same(module.state_dict(), before)


@pytest.mark.parametrize(
    ("module", "x", "elements", "quant_max"),
    [
        (activation(), torch.rand(6, 2, 5), 10, 255),
        (activation(), torch.rand(3, 2, 5), 10, 255),
        (weight(3), torch.rand(3, 4, 2), 8, 7),
        (FakeQuantize(QuantSpec(bits=4), role="weight"), torch.rand(3, 4, 2), 24, 7),
    ],
)
def test_gradient_scale_is_that_of_lsq(module, x, elements, quant_max):
    calibrated(module, x)
    x = x * 2  # some of it is clipped: the scale's gradient is not zero

    def gradient(training: bool) -> torch.Tensor:
        module.train(training).zero_grad()
        module(x).sum().backward()
        return module.scale.grad.clone()

    torch.testing.assert_close(
        gradient(training=True), gradient(training=False) / math.sqrt(elements * quant_max)
    )
    assert gradient(training=True).abs().min() > 0


def test_scale_and_zero_point_learn():
    spec = QuantSpec(bits=3, signed=False, symmetric=False)
    module = calibrated(FakeQuantize(spec, role="activation"), torch.tensor([0.0, 1.0]))
    assert module.zero_point.item() == 0
    optimizer = torch.optim.SGD(module.parameters(), lr=1.0, momentum=0.9)
    x = torch.rand(64, 16) * 4 - 2
    losses = []
    for _ in range(100):
        optimizer.zero_grad()
        loss = (module(x) - x).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.1 * losses[0]  # the best scale leaves 0.04 of it
    assert module.scale.item() > 3 / 7
    assert module.zero_point.item() > 2


def test_a_frozen_scale_stays_whatever_the_optimizer_remembers():
    module = calibrated(activation(), torch.rand(8))
    optimizer = torch.optim.SGD(module.parameters(), lr=1.0, momentum=0.9, weight_decay=0.1)
    (module(torch.randn(8)) * 3).sum().backward()
    optimizer.step()
    before = copy.deepcopy(module.state_dict())
    module.freeze()
    assert module.state == "frozen"
    x = torch.rand(8, requires_grad=True)
    module(x).sum().backward()
    optimizer.step()
    assert x.grad is not None
    assert module.scale.grad is None
    assert torch.equal(module.scale, before["scale"])
    assert torch.equal(module.zero_point, before["zero_point"])
    module.unfreeze()
    assert module.state == "train"
    module(torch.randn(8)).sum().backward()
    assert module.scale.grad is not None


def test_a_scale_survives_an_absurd_step():
    module = calibrated(activation(), torch.rand(8))
    with torch.no_grad():
        for value in (-3.0, 0.0, math.nan, math.inf):
            module.scale.fill_(value)
            assert module(torch.tensor([1.0, -1.0])).isfinite().all()


@pytest.mark.parametrize("state", ["uncalibrated", "calibrate", "train", "frozen"])
@pytest.mark.parametrize("way", ["state_dict", "file", "deepcopy", "pickle"])
def test_everything_is_carried_over(state, way):
    source = weight(3)
    x = torch.rand(3, 5)
    if state != "uncalibrated":
        source.begin_calibration()
        source(x)
    if state in ("train", "frozen"):
        source.finish_calibration()
    if state == "frozen":
        source.freeze()
    if way == "deepcopy":
        target = copy.deepcopy(source)
    elif way == "pickle":
        target = pickle.loads(pickle.dumps(source))
    elif way == "state_dict":
        target = weight(3)
        target.load_state_dict(source.state_dict())
    else:
        file = io.BytesIO()
        torch.save(source.state_dict(), file)
        file.seek(0)
        target = weight(3)
        target.load_state_dict(torch.load(file, weights_only=True))
    assert target.state == state
    assert target.spec == source.spec
    assert_same(target.state_dict(), source.state_dict())
    assert target.scale.requires_grad == (state != "frozen")
    if source.calibrated:
        assert torch.equal(target(x), source(x))


def test_an_unknown_state_is_refused():
    state = weight(3).state_dict()
    state["_extra_state"] = torch.tensor(9, dtype=torch.uint8)
    with pytest.raises(ValueError, match="unknown state 9"):
        weight(3).load_state_dict(state)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"role": "bias"}, "role must be one of .*, got 'bias'"),
        ({"role": "weight", "scale_shape": (3,)}, r"scale_shape must be \(\) .* got \(3,\)"),
        ({"role": "weight", "range_method": "entropy"}, r"range_method must be one of .*'entropy'"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        FakeQuantize(ACTIVATION, **arguments)


def test_per_channel_needs_channels():
    with pytest.raises(ValueError, match=r"scale_shape must be \(channels,\) .* got \(\)"):
        FakeQuantize(WEIGHT, role="weight")


@pytest.mark.parametrize("training", [True, False])
def test_compiles_without_a_break(training):
    module = calibrated(activation(), torch.rand(8)).train(training)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    x = torch.randn(4, 8)
    assert torch.equal(compiled(x), module(x))
    gradients = []
    for function in (compiled, module):
        module.zero_grad()
        function(x).square().sum().backward()
        gradients.append(module.scale.grad.clone())
    assert torch.equal(*gradients)


def test_exports_and_traces():
    module = calibrated(activation(), torch.rand(8)).eval()
    x = torch.randn(4, 8)
    exported = torch.export.export(module, (x,)).module()
    assert torch.equal(exported(x), module(x))
    traced = torch.jit.trace(copy.deepcopy(module).requires_grad_(False), x)
    y = torch.randn(7, 3)
    assert torch.equal(traced(y), module(y))
    assert "qatx::fake_quantize" in str(traced.graph)


def test_repr_names_spec_and_state():
    assert "bits=4" in repr(weight())
    assert "state=uncalibrated" in repr(weight())
