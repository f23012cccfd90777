"""Whether a model is calibrated."""

from __future__ import annotations

from torch import nn

from qatx.nn import FakeQuantize


def check_calibrated(owner: str, model: nn.Module) -> None:
    """Raises ValueError, in the name of the function `owner`, where a scale is missing."""
    fake_quantizes = {
        name: module for name, module in model.named_modules() if isinstance(module, FakeQuantize)
    }
    if not fake_quantizes:
        raise ValueError(f"{owner}: the model has no quantization; call qatx.prepare first")
    missing = [name for name, module in fake_quantizes.items() if not module.calibrated]
    if missing:
        raise ValueError(
            f"{owner}: the model is not calibrated; call qatx.calibrate(model, data) first. "
            f"Without a scale: {', '.join(missing)}"
        )
