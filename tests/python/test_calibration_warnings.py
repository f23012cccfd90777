"""What `qatx.calibrate` warns of, and what it does not warn of."""

import warnings

import pytest
import qatx
import torch
from qatx import CalibrationWarning
from torch import Tensor, nn


def images(count: int, channels: int = 3) -> Tensor:
    """Smooth, as photographs are, and no two alike."""
    coarse = torch.randn(count, channels, 5, 5)
    return nn.functional.interpolate(coarse, size=(16, 16), mode="bilinear", align_corners=True)


def network() -> nn.Module:
    return qatx.prepare(
        nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 14 * 14, 10))
    )


def warned(model: nn.Module, data: object, **arguments) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        report = qatx.calibrate(model, data, **arguments)
    texts = [str(w.message) for w in caught]
    assert all(w.category is CalibrationWarning and w.filename == __file__ for w in caught)
    assert [f"qatx.calibrate: {text}" for text in report.warnings] == texts
    return texts


def test_good_data_are_no_reason_to_warn():
    assert warned(network(), images(128).split(16)) == []
    assert warned(network(), images(128)) == []


def test_few_samples():
    (text,) = warned(network(), images(99).split(9))
    assert "99 samples are few" in text
    assert warned(network(), images(100).split(10)) == []


@pytest.mark.parametrize("kind", [torch.rand, torch.randn])
def test_noise(kind):
    (text,) = warned(network(), kind(128, 3, 16, 16))
    assert "look like random noise: neighbouring pixels correlate by" in text
    assert abs(float(text.split("correlate by ")[1].split()[0])) < 0.1


def test_glitches_in_few_images_are_not_noise():
    data = images(200)
    data[::50, 0, 3, 4] = 1000.0
    assert not any("noise" in text for text in warned(network(), data))


def test_constant_images_are_not_noise():
    assert not any("noise" in text for text in warned(network(), torch.ones(128, 3, 16, 16)))


def test_duplicates():
    x = images(60)
    (text,) = warned(network(), torch.cat([x, x]))
    assert "60 of 120 samples are duplicates" in text
    few = torch.cat([images(120), x[:5], x[:5]])
    assert warned(network(), few) == []


def test_a_range_that_still_moves():
    x = images(128)
    x[-8:] *= 10
    (text,) = warned(network(), x.split(8))
    assert "tensors still move at the end: that of " in text
    assert "in the last quarter of the samples" in text
    assert warned(network(), x.flip(0).split(8)) == []


def test_an_activation_channel_that_stands_out():
    torch.manual_seed(1)
    model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.Conv2d(16, 4, 1))
    with torch.no_grad():
        model[0].weight[5] *= 1000
    texts = warned(qatx.prepare(model), images(128))
    (text,) = texts
    assert "range of channel 5 of 0." in text
    assert "times the median of its neighbours" in text


def test_a_weight_channel_that_stands_out():
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 256, 16))
    with torch.no_grad():
        model[1].weight[7] *= 150
    (text,) = warned(qatx.prepare(model), images(128))
    assert "range of channel 7 of 1.weight_fake_quantize" in text


def test_hooks_are_gone_afterwards():
    model = network()
    warned(model, images(128))
    assert not any(module._forward_pre_hooks for module in model.modules())
    with pytest.raises(ValueError, match="data is empty"):
        qatx.calibrate(model, [])
    assert not any(module._forward_pre_hooks for module in model.modules())
