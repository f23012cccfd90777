"""`verify`: whether a converted model computes what the trained one does."""

from __future__ import annotations

import copy
import io
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from qatx import _C, _torchscript
from qatx._batches import first_tensor
from qatx._C import Verification
from qatx._calibrated import check_calibrated
from qatx.nn import FakeQuantize


@torch.no_grad()
def verify(
    model: nn.Module, converted: torch.jit.ScriptModule, data: Tensor | Iterable[Any]
) -> Verification:
    """Compares a converted model with the model in training form that it was made of.

    Both run on the data in evaluation mode. Each value that the model quantizes is compared with
    the codes that the converted model holds for it. The trained model adds its products in float32,
    the converted one exactly, so single codes on the border between two may differ.

    Args:
        model: What `qatx.convert` took; it is not changed.
        converted: What it returned, or what `qatx.load` did.
        data: A tensor (one batch) or an iterable of batches. A batch is a tensor, or a tuple or
            list that starts with one (the rest is taken for labels).

    Returns:
        A row for each quantized value, and a verdict.

    Raises:
        TypeError: A batch is something else.
        ValueError: `data` is empty, or `model` has no quantization or is not calibrated.

    Example:
        >>> print(qatx.verify(model, converted, batches).verdict)
        Equal...
    """
    check_calibrated("qatx.verify", model)
    trained = copy.deepcopy(model).eval()
    archive = io.BytesIO()
    _torchscript.save(converted, archive)
    comparison = _C.Comparison(archive.getvalue())
    values: list[tuple[str, Tensor]] = []
    names = {module: path for path, module in _paths(trained) if _is_activation(module)}

    def remember(module: nn.Module, _inputs: object, output: Tensor) -> None:
        values.append((names[module], output))

    for module in names:
        module.register_forward_hook(remember)
    for batch in [data] if isinstance(data, Tensor) else data:
        x = first_tensor("qatx.verify", batch)
        values.clear()
        leaves: list[Any] = torch.utils._pytree.tree_leaves(trained(x))
        comparison.add([x], values, [leaf for leaf in leaves if isinstance(leaf, Tensor)])
    return comparison.finish()


def _paths(module: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """Modules and all their paths; of a shared one, tracing takes the last."""
    for name, child in module.named_children():
        yield f"{prefix}{name}", child
        yield from _paths(child, f"{prefix}{name}.")


def _is_activation(module: nn.Module) -> bool:
    return isinstance(module, FakeQuantize) and module.role == "activation"
