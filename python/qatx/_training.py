"""Helpers for the training loop."""

from __future__ import annotations

import math
from typing import Any

from torch import nn

from qatx.nn.conv_bn import _ConvBn


def parameter_groups(model: nn.Module, *, weight_decay: float = 0.0) -> list[dict[str, Any]]:
    """Splits a model's parameters for an optimizer, so that weight decay reaches weights only.

    Decay would pull scales and zero points away from where the loss wants them, and is of no use on
    biases and normalization. They are told apart by their shape: what has one dimension or none
    does not decay.

    Args:
        model: A prepared model (or any other).
        weight_decay: For convolution, linear and embedding weights; at least 0.

    Returns:
        Two groups, with the parameters that require a gradient: the weights, and all others, whose
        weight decay is 0.

    Raises:
        ValueError: `weight_decay` is negative or not finite.

    Example:
        >>> groups = qatx.parameter_groups(model, weight_decay=1e-4)
        >>> optimizer = torch.optim.SGD(groups, lr=0.001, momentum=0.9)
    """
    if not (math.isfinite(weight_decay) and weight_decay >= 0):
        raise ValueError(
            f"qatx.parameter_groups: weight_decay must be finite and at least 0, got {weight_decay}"
        )
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return [
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
    ]


def freeze_batch_norm(model: nn.Module) -> None:
    """Makes batch normalization use its running statistics, and leave them alone, in training too.

    Late in training this removes the noise of batch statistics: from here on training computes what
    is deployed. Gamma and beta are still trained. It lasts: `model.train()` does not undo it.

    Args:
        model: A prepared model. Batch normalization that `qatx.prepare` could not fold is frozen
            too.
    """
    for module in model.modules():
        if isinstance(module, _ConvBn):
            module.batch_norm_frozen = True
        elif (
            isinstance(module, nn.modules.batchnorm._BatchNorm)
            and _stay_in_evaluation not in module._forward_pre_hooks.values()
        ):
            module.register_forward_pre_hook(_stay_in_evaluation)


def _stay_in_evaluation(module: nn.Module, _args: tuple[Any, ...]) -> None:
    module.training = False
