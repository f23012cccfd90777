import dataclasses
import pickle

import pytest
import qatx
from qatx import QConfig, QuantSpec


def test_defaults_are_w8_per_channel_and_a8_per_tensor():
    qconfig = QConfig()
    assert qconfig.weight == QuantSpec(bits=8, signed=True, symmetric=True, axis=0)
    assert qconfig.activation == QuantSpec(bits=8, signed=False, symmetric=False, axis=None)
    assert qconfig.weight_quantizer == qconfig.activation_quantizer == "lsq"


def test_is_a_value():
    four = QConfig(weight=QuantSpec(bits=4, axis=0))
    assert four != QConfig()
    assert four == pickle.loads(pickle.dumps(four))
    assert {four: 1}[QConfig(weight=QuantSpec(bits=4, axis=0))] == 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        four.weight_quantizer = "fixed"


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"weight": "int8"}, TypeError, "weight must be a QuantSpec, got 'int8'"),
        ({"activation": None}, TypeError, "activation must be a QuantSpec, got None"),
        ({"power_of_two": 1}, TypeError, "power_of_two must be a bool, got 1"),
        ({"weight_quantizer": "pact"}, ValueError, "weight_quantizer must be one of .* got 'pact'"),
        ({"activation_quantizer": "dorefa"}, ValueError, "activation_quantizer must be one of"),
        ({"weight_range": "max"}, ValueError, "weight_range must be one of .* got 'max'"),
        ({"activation_range": 8}, ValueError, "activation_range must be one of .* got 8"),
        (
            {"weight": QuantSpec(axis=0, group_size=4)},
            ValueError,
            "weight.axis must be 1 with a group_size, got 0",
        ),
        ({"weight": QuantSpec(axis=1)}, ValueError, "weight.axis must be 0 or None, got 1"),
        ({"activation": QuantSpec(axis=0)}, ValueError, "activation.axis must be None, got 0"),
    ],
)
def test_bad_fields(arguments, error, message):
    with pytest.raises(error, match=message):
        QConfig(**arguments)


def test_positional_fields_are_refused():
    with pytest.raises(TypeError):
        qatx.QConfig(QuantSpec())
