"""The transformers of `torch.nn` in operators that torch.fx traces and `prepare` quantizes."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def spell_out(model: nn.Module) -> None:
    """Replaces attention and encoders of `torch.nn` within a model by modules of the same paths.

    `MultiheadAttention` with bias_k or zero attention stays as it is.
    """
    for name, child in model.named_children():
        spell_out(child)
        twin = _twin(child)
        if twin is not child:
            setattr(model, name, twin)


def _twin(module: nn.Module) -> nn.Module:
    if module._forward_hooks or module._forward_pre_hooks:  # they may do anything
        return module
    if type(module) is nn.MultiheadAttention and module.bias_k is None and not module.add_zero_attn:
        return _MultiheadAttention(module)
    if type(module) is nn.TransformerEncoderLayer:
        return _EncoderLayer(module)
    return _Encoder(module) if type(module) is nn.TransformerEncoder else module


class Mask(nn.Module):
    """What is added to the scores of attention, of masks whose dtype tracing cannot know."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.heads = heads

    def forward(self, attn_mask: Tensor | None, key_padding_mask: Tensor | None) -> Tensor:
        """Returns float32 that broadcasts to `[N, heads, T, S]`; one of the masks is not None."""
        summands = []
        if attn_mask is not None:
            summand = _summand(attn_mask)
            if summand.dim() == 3:  # [N * heads, T, S]
                summand = summand.unflatten(0, (-1, self.heads))
            summands.append(summand)
        if key_padding_mask is not None:
            summands.append(_summand(key_padding_mask).unsqueeze(1).unsqueeze(1))
        return summands[0] if len(summands) == 1 else summands[0] + summands[1]


def _summand(mask: Tensor) -> Tensor:
    if mask.dtype != torch.bool:
        return mask
    return torch.zeros_like(mask, dtype=torch.float32).masked_fill(mask, -math.inf)


class _MultiheadAttention(nn.Module):
    """`nn.MultiheadAttention` of batches; its projections are layers."""

    def __init__(self, source: nn.MultiheadAttention) -> None:
        super().__init__()
        self.heads = source.num_heads
        self.batch_first = source.batch_first
        weights = (
            (source.q_proj_weight, source.k_proj_weight, source.v_proj_weight)
            if source.in_proj_weight is None
            else source.in_proj_weight.chunk(3)
        )
        biases = (None, None, None) if source.in_proj_bias is None else source.in_proj_bias.chunk(3)
        self.q_proj, self.k_proj, self.v_proj = map(_linear, weights, biases)
        self.head_width = source.head_dim
        self.out_proj = _linear(source.out_proj.weight, source.out_proj.bias)
        self.mask = Mask(self.heads)
        self.dropout = nn.Dropout(source.dropout)
        self.train(source.training)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,  # noqa: ARG002 (a hint; attn_mask says the same)
    ) -> tuple[Tensor, Tensor | None]:
        q, k, v = (
            self._split(layer(x))
            for layer, x in ((self.q_proj, query), (self.k_proj, key), (self.v_proj, value))
        )
        scores = torch.matmul(q, k.transpose(-2, -1)) * (1 / math.sqrt(self.head_width))
        if attn_mask is not None or key_padding_mask is not None:
            scores = scores + self.mask(attn_mask, key_padding_mask)
        weights = self.dropout(torch.softmax(scores, -1))
        y = torch.matmul(weights, v)
        y = y.transpose(1, 2) if self.batch_first else y.permute(2, 0, 1, 3)
        output = self.out_proj(y.flatten(2))
        if not need_weights:
            return output, None
        return output, weights.mean(1) if average_attn_weights else weights

    def _split(self, x: Tensor) -> Tensor:
        """`[N, heads, T, E]`."""
        x = x.unflatten(2, (self.heads, self.head_width))
        return x.transpose(1, 2) if self.batch_first else x.permute(1, 2, 0, 3)


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    linear = nn.Linear(weight.size(1), weight.size(0), bias is not None, device="meta")
    linear.weight = nn.Parameter(weight.detach().clone())
    if bias is not None:
        linear.bias = nn.Parameter(bias.detach().clone())
    return linear


class _EncoderLayer(nn.Module):
    """`nn.TransformerEncoderLayer`."""

    def __init__(self, source: nn.TransformerEncoderLayer) -> None:
        super().__init__()
        for name, child in source.named_children():
            self.add_module(name, child)
        self.norm_first = source.norm_first
        if not isinstance(source.activation, nn.Module):
            self.activation = source.activation
        self.train(source.training)

    def forward(
        self,
        src: Tensor,
        src_mask: Tensor | None = None,
        src_key_padding_mask: Tensor | None = None,
        is_causal: bool = False,  # noqa: ARG002 (a hint; src_mask says the same)
    ) -> Tensor:
        def attend(x: Tensor) -> Tensor:
            y, _ = self.self_attn(  # type: ignore[operator]
                *(x, x, x), src_key_padding_mask, need_weights=False, attn_mask=src_mask
            )
            return self.dropout1(y)  # type: ignore[no-any-return, operator]

        def feed(x: Tensor) -> Tensor:
            y = self.activation(self.linear1(x))  # type: ignore[operator]
            y = self.linear2(self.dropout(y))  # type: ignore[operator]
            return self.dropout2(y)  # type: ignore[no-any-return, operator]

        norm1, norm2 = self.norm1, self.norm2
        if self.norm_first:
            src = src + attend(norm1(src))  # type: ignore[operator]
            return src + feed(norm2(src))  # type: ignore[operator]
        src = norm1(src + attend(src))  # type: ignore[operator]
        return norm2(src + feed(src))  # type: ignore[no-any-return, operator]


class _Encoder(nn.Module):
    """`nn.TransformerEncoder`."""

    def __init__(self, source: nn.TransformerEncoder) -> None:
        super().__init__()
        self.layers = source.layers
        self.norm = source.norm
        self.train(source.training)

    def forward(
        self,
        src: Tensor,
        mask: Tensor | None = None,
        src_key_padding_mask: Tensor | None = None,
        is_causal: bool | None = None,  # noqa: ARG002 (a hint; mask says the same)
    ) -> Tensor:
        for layer in self.layers:
            src = layer(src, mask, src_key_padding_mask)
        return src if self.norm is None else self.norm(src)
