"""Quantized embeddings."""

from __future__ import annotations

import copy
from typing import TypeAlias

import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import Self

from qatx.nn._layer import Device, WeightedLayer
from qatx.qconfig import QConfig

_Float: TypeAlias = nn.Embedding | nn.EmbeddingBag


class _Table(WeightedLayer):
    """What both have in common: a quantized table, with a scale for each row by default."""

    @classmethod
    def from_float(
        cls, table: _Float, *, qconfig: QConfig | None = None, quantize_output: bool = True
    ) -> Self:
        """Makes the quantized twin of a float table: a copy, on its device, in its mode.

        Raises:
            ValueError: The table is not float32, or normalizes or updates single rows.
        """
        return cls._adopt(copy.deepcopy(table), qconfig, False, quantize_output)

    @classmethod
    def _adopt(
        cls, table: _Float, qconfig: QConfig | None, _relu: object, quantize_output: bool
    ) -> Self:
        if table.max_norm is not None or table.sparse or table.scale_grad_by_freq:
            raise ValueError(
                f"{cls.__name__}: the table must have no max_norm, sparse or scale_grad_by_freq"
            )
        module = cls(
            table.num_embeddings,
            table.embedding_dim,
            padding_idx=table.padding_idx,
            **({"mode": table.mode} if isinstance(table, nn.EmbeddingBag) else {}),
            device="meta",
            qconfig=qconfig,
            quantize_output=quantize_output,
        )
        return module._take_over(table)

    def _init(self, qconfig: QConfig | None, quantize_output: bool, device: Device) -> None:
        qconfig = qconfig or QConfig()
        weight: Tensor = self.weight  # type: ignore[assignment]
        self._init_weight(qconfig, weight.shape, device)
        self._init_output(qconfig, False, quantize_output, device)


class Embedding(_Table, nn.Embedding):
    """`torch.nn.Embedding` with a quantized table, then a quantized output.

    Takes int64 indices of any shape and returns float32 `[..., embedding_dim]`.

    Args:
        num_embeddings, embedding_dim, padding_idx, device: As in `torch.nn.Embedding`.
        qconfig: How to quantize, rows as output channels; None for `QConfig()`.
        quantize_output: Whether the output is quantized.
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        *,
        device: Device = None,
        qconfig: QConfig | None = None,
        quantize_output: bool = True,
    ) -> None:
        super().__init__(num_embeddings, embedding_dim, padding_idx, device=device)
        self._init(qconfig, quantize_output, device)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (torch's name)
        """Looks up."""
        weight = self.weight_fake_quantize(self.weight)
        return self._finish(F.embedding(input, weight, self.padding_idx))


class EmbeddingBag(_Table, nn.EmbeddingBag):
    """`torch.nn.EmbeddingBag` with a quantized table, then a quantized output.

    Args:
        num_embeddings, embedding_dim, device: As in `torch.nn.EmbeddingBag`.
        mode: "sum" or "mean".
        padding_idx: As in `torch.nn.EmbeddingBag`; with one the layer stays float when converted.
        qconfig: How to quantize, rows as output channels; None for `QConfig()`.
        quantize_output: Whether the output is quantized.

    Raises:
        ValueError: `mode` is another one.
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        *,
        mode: str = "mean",
        padding_idx: int | None = None,
        device: Device = None,
        qconfig: QConfig | None = None,
        quantize_output: bool = True,
    ) -> None:
        if mode not in ("sum", "mean"):
            raise ValueError(f'EmbeddingBag: mode must be "sum" or "mean", got {mode!r}')
        super().__init__(
            num_embeddings, embedding_dim, mode=mode, padding_idx=padding_idx, device=device
        )
        self._init(qconfig, quantize_output, device)

    def forward(  # type: ignore[override]
        self,
        input: Tensor,  # noqa: A002 (torch's name)
        offsets: Tensor | None = None,
    ) -> Tensor:
        """Adds up the rows of each bag.

        Args:
            input: int64 `[N, L]`, or `[M]` with `offsets`.
            offsets: int64 `[N]`: where each bag begins.

        Returns:
            float32 `[N, embedding_dim]`.
        """
        weight = self.weight_fake_quantize(self.weight)
        y = F.embedding_bag(input, weight, offsets, mode=self.mode, padding_idx=self.padding_idx)
        return self._finish(y)
