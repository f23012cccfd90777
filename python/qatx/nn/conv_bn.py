"""Quantized convolutions with batch normalization."""

from __future__ import annotations

import copy
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from typing_extensions import Self

from qatx.nn._layer import Device, Relu
from qatx.nn.conv import (
    Conv1d,
    Conv2d,
    Conv3d,
    ConvTranspose1d,
    ConvTranspose2d,
    ConvTranspose3d,
    _Conv,
    _Float,
)
from qatx.qconfig import QConfig

_BatchNorm: TypeAlias = nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d
_PLACE_OF_BIAS = 7  # among the positional arguments of all convolutions


class _ConvBn(_Conv):
    """What all of them have in common.

    Attributes:
        bn: The batch normalization of `torch.nn`.
        batch_norm_frozen: Whether training uses the running statistics and leaves them alone.
    """

    _batch_norm: type[_BatchNorm]
    bn: _BatchNorm

    def __init__(
        self,
        *args: Any,  # noqa: ANN401 (those of the convolution)
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        device: Device = None,
        **kwargs: Any,  # noqa: ANN401
    ) -> None:
        if len(args) <= _PLACE_OF_BIAS:
            kwargs.setdefault("bias", False)
        super().__init__(*args, device=device, **kwargs)
        channels: int = self.out_channels  # type: ignore[assignment]
        self.bn = self._batch_norm(
            channels, eps=eps, momentum=momentum, affine=affine, device=device
        )
        self.batch_norm_frozen = False

    @classmethod
    def from_float(  # type: ignore[override]
        cls,
        conv: _Float,
        bn: _BatchNorm,
        *,
        qconfig: QConfig | None = None,
        relu: Relu = False,
        quantize_output: bool = True,
    ) -> Self:
        """Makes the quantized twin of a convolution and the batch normalization behind it.

        Raises:
            ValueError: `conv` pads with something else than zeros or is not float32, or `bn` does
                not fit or has no running statistics.
        """
        conv, bn = copy.deepcopy((conv, bn))
        return cls._adopt(conv, qconfig, relu, quantize_output)._adopt_bn(bn)

    def _adopt_bn(self, bn: _BatchNorm) -> Self:
        if bn.num_features != self.out_channels:
            raise ValueError(
                f"{type(self).__name__}: bn must have the {self.out_channels} channels of the "
                f"convolution, got {bn.num_features}"
            )
        if bn.running_mean is None or bn.running_var is None:
            raise ValueError(
                f"{type(self).__name__}: bn must have running statistics (track_running_stats=True)"
            )
        self.bn = bn
        return self

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (torch's name)
        """Returns float32 `[N, Cout, ...]`."""
        if not self.training or self.batch_norm_frozen:
            return self._run_deployed(input)
        # The division below takes the factor back out: all of gamma's gradient but noise of
        # rounding comes from the normalization.
        factor = self._factor(detach_gamma=True)
        weight = super()._deployed_weight() * self._along(factor, 0)
        y = self._multiply(input, self.weight_fake_quantize(weight), None)
        y = y / self._along(_divisor(factor), 1)
        if self.bias is not None:
            y = y + self._along(self.bias, 1)
        return self._finish(self.bn(y))

    def _along(self, x: Tensor, axis: int) -> Tensor:
        """Numbers of output channels, for a tensor with so many dimensions and these at `axis`."""
        return x.reshape([-1 if d == axis else 1 for d in range(self.weight.dim())])

    def _factor(self, *, detach_gamma: bool = False) -> Tensor:
        """What normalization with the running statistics multiplies each channel with."""
        assert self.bn.running_var is not None
        factor = torch.rsqrt(self.bn.running_var + self.bn.eps)
        if self.bn.affine:
            factor = factor * (self.bn.weight.detach() if detach_gamma else self.bn.weight)
        return factor

    def _deployed_weight(self) -> Tensor:
        return super()._deployed_weight() * self._along(self._factor(), 0)

    def _deployed_bias(self) -> Tensor:
        mean = self.bn.running_mean
        assert mean is not None
        bias = (-mean if self.bias is None else self.bias - mean) * self._factor()
        return bias + self.bn.bias if self.bn.affine else bias

    @torch.no_grad()
    def _set_deployed_weight(self, weight: Tensor) -> None:
        factor = self._along(self._factor(), 0)
        own = super()._deployed_weight()
        super()._set_deployed_weight(torch.where(factor == 0, own, weight / _divisor(factor)))

    @torch.no_grad()
    def _add_to_bias(self, change: Tensor) -> None:
        if self.bn.affine:
            self.bn.bias.add_(change)
        else:
            assert self.bn.running_mean is not None
            self.bn.running_mean.sub_(change / self._factor())

    # A tensor, because some formats of state dicts hold nothing else.
    def get_extra_state(self) -> Tensor:
        """`batch_norm_frozen`, for `state_dict`."""
        return torch.tensor(self.batch_norm_frozen)

    def set_extra_state(self, state: Tensor) -> None:
        """Takes `batch_norm_frozen` from a state dict."""
        self.batch_norm_frozen = bool(state)

    def extra_repr(self) -> str:
        """Torch's, the ReLU, and whether batch normalization is frozen."""
        return f"{super().extra_repr()}, batch_norm_frozen={self.batch_norm_frozen}"


def _divisor(factor: Tensor) -> Tensor:
    """Where gamma is 0, so is the weight: whatever it is divided by, nothing changes."""
    return torch.where(factor == 0, 1.0, factor)


class ConvBn1d(_ConvBn, Conv1d):
    """`Conv1d` with the batch normalization after it folded into its weight, as `ConvBn2d`."""

    _batch_norm = nn.BatchNorm1d


class ConvBn2d(_ConvBn, Conv2d):
    """A convolution with the batch normalization after it folded into its weight.

    What is quantized is `weight * gamma / sqrt(running_var + eps)`, the weight that is deployed
    (arXiv 1806.08342, section 3.2.2). In training the result is scaled back and normalized with the
    statistics of the batch. In evaluation, and in training once `batch_norm_frozen` is set, the
    layer is one convolution with the folded weight and bias.

    Args:
        in_channels, out_channels, kernel_size, ..., device: As in the convolution of `qatx.nn` of
            the same name.
        bias: Whether the convolution has a bias of its own, before the normalization; default
            False.
        eps, momentum, affine: As in `torch.nn.BatchNorm2d`.
        qconfig, relu, quantize_output: As in `Conv2d`.

    Attributes:
        bn: The batch normalization of `torch.nn`.
        batch_norm_frozen: Whether training uses the running statistics and leaves them alone.
    """

    _batch_norm = nn.BatchNorm2d


class ConvBn3d(_ConvBn, Conv3d):
    """`Conv3d` with the batch normalization after it folded into its weight, as `ConvBn2d`."""

    _batch_norm = nn.BatchNorm3d


class ConvTransposeBn1d(_ConvBn, ConvTranspose1d):
    """`ConvTranspose1d` with batch normalization folded into its weight, as `ConvBn2d`."""

    _batch_norm = nn.BatchNorm1d

    # nn.ConvTranspose1d's has an argument more.
    def forward(self, input: Tensor) -> Tensor:  # type: ignore[override]  # noqa: A002
        """Returns float32 `[N, Cout, L']`."""
        return _ConvBn.forward(self, input)


class ConvTransposeBn2d(_ConvBn, ConvTranspose2d):
    """`ConvTranspose2d` with batch normalization folded into its weight, as `ConvBn2d`."""

    _batch_norm = nn.BatchNorm2d

    # nn.ConvTranspose2d's has an argument more.
    def forward(self, input: Tensor) -> Tensor:  # type: ignore[override]  # noqa: A002
        """Returns float32 `[N, Cout, H', W']`."""
        return _ConvBn.forward(self, input)


class ConvTransposeBn3d(_ConvBn, ConvTranspose3d):
    """`ConvTranspose3d` with batch normalization folded into its weight, as `ConvBn2d`."""

    _batch_norm = nn.BatchNorm3d

    # nn.ConvTranspose3d's has an argument more.
    def forward(self, input: Tensor) -> Tensor:  # type: ignore[override]  # noqa: A002
        """Returns float32 `[N, Cout, D', H', W']`."""
        return _ConvBn.forward(self, input)


#: For `prepare`: the layer of `qatx.nn` that holds a convolution and its batch normalization.
CONV_BN: dict[tuple[type[nn.Module], type[nn.Module]], type[_ConvBn]] = {
    (nn.Conv1d, nn.BatchNorm1d): ConvBn1d,
    (nn.Conv2d, nn.BatchNorm2d): ConvBn2d,
    (nn.Conv3d, nn.BatchNorm3d): ConvBn3d,
    (nn.ConvTranspose1d, nn.BatchNorm1d): ConvTransposeBn1d,
    (nn.ConvTranspose2d, nn.BatchNorm2d): ConvTransposeBn2d,
    (nn.ConvTranspose3d, nn.BatchNorm3d): ConvTransposeBn3d,
}
