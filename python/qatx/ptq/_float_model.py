"""What the methods for float models check."""

from __future__ import annotations

from torch import nn

from qatx.nn import FakeQuantize
from qatx.nn._layer import QuantizedLayer


def check_float_model(owner: str, model: nn.Module) -> None:
    """Raises TypeError or ValueError, in the name of the function `owner`, for another."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"{owner}: model must be a torch.nn.Module, got {type(model).__name__}")
    for name, module in model.named_modules():
        if isinstance(module, (QuantizedLayer, FakeQuantize)):
            raise ValueError(
                f"{owner}: the model is prepared already: {name or 'it'} is a "
                f"{type(module).__name__}; call this before qatx.prepare"
            )
