"""Quantized attention."""

from __future__ import annotations

import math
import warnings

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qatx.nn._layer import Device
from qatx.nn._make import activation_fake_quantize
from qatx.qconfig import QConfig


class ScaledDotProductAttention(nn.Module):
    """`softmax(query @ key^T * scale + mask) @ value`, with quantized probabilities.

    What `torch.nn.functional.scaled_dot_product_attention` computes, with both products between
    quantized values. The query, key and value should be quantized already, key and value
    symmetrically (`QuantSpec(signed=True, symmetric=True)`): in integers they take the place of
    weights. The softmax itself is computed in float32. The result is not quantized.

    Args:
        qconfig: How to quantize the probabilities; None for `QConfig()`.
        device: Where the parameters live.

    Attributes:
        probability_fake_quantize: Quantizes what the softmax gives.
    """

    def __init__(self, *, qconfig: QConfig | None = None, device: Device = None) -> None:
        super().__init__()
        self.probability_fake_quantize = activation_fake_quantize(qconfig or QConfig(), device)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        *,
        scale: float | None = None,
    ) -> Tensor:
        """Attends.

        Args:
            query: `[N, heads, T, E]`, or with other leading dimensions.
            key: `[N, heads, S, E]`.
            value: `[N, heads, S, D]`.
            attn_mask: bool, True where to attend, or float32 that is added to the scores; of a
                shape that broadcasts to `[N, heads, T, S]`.
            dropout_p: The share of probabilities that are left out. As in PyTorch it does not
                depend on the mode of the module.
            is_causal: Whether each query only meets keys up to its own place.
            scale: Of the scores; None: `1 / sqrt(E)`.

        Returns:
            `[N, heads, T, D]`.
        """
        scores = torch.matmul(query, key.transpose(-2, -1))
        scores = scores * (_default_scale(query) if scale is None else scale)
        if is_causal:
            shape = (query.size(-2), key.size(-2))
            allowed = torch.ones(shape, dtype=torch.bool, device=query.device).tril()
            scores = _keep(scores, allowed)
        if attn_mask is not None:
            scores = _keep(scores, attn_mask) if _is_bool(attn_mask) else scores + attn_mask
        probabilities: Tensor = self.probability_fake_quantize(torch.softmax(scores, -1))
        if dropout_p > 0:
            probabilities = F.dropout(probabilities, dropout_p)
        return torch.matmul(probabilities, value)


def _default_scale(query: Tensor) -> float:
    if not torch.jit._trace.is_tracing():
        return 1 / math.sqrt(query.size(-1))
    with warnings.catch_warnings():  # that the trace takes it for a constant, which it is
        warnings.simplefilter("ignore", torch.jit._trace.TracerWarning)
        return 1 / math.sqrt(float(query.size(-1)))


def _is_bool(mask: Tensor) -> bool:
    return mask.dtype == torch.bool


def _keep(scores: Tensor, allowed: Tensor) -> Tensor:
    return torch.where(allowed, scores, -math.inf)
