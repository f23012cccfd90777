"""An oracle for converted models that shares nothing with the engine but the numeric contract."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten
_KEEPS_SCALE = {
    aten.view.default,
    aten._unsafe_view.default,
    aten.t.default,
    aten.max_pool2d_with_indices.default,
    aten.clone.default,
    aten.detach.default,
}


class _Contract(TorchDispatchMode):
    """Follows which tensors are codes times a scale, and computes with the codes.

    Sums of products of codes are exact in float64. After them come the contract's float32 steps.
    """

    def __init__(self) -> None:
        super().__init__()
        self.scales: dict[
            int, tuple[Tensor, Tensor]
        ] = {}  # by id, with the tensor to keep it alive

    def tag(self, x: Tensor, scale: Tensor) -> Tensor:
        self.scales[id(x)] = (x, scale.flatten())
        return x

    def scale(self, x: Any) -> Tensor | None:
        return self.scales[id(x)][1] if id(x) in self.scales else None

    def codes(self, x: Tensor, scale: Tensor, axis: int = 0) -> Tensor:
        shape = [1] * x.dim()
        shape[axis] = -1
        return (x.double() / scale.double().reshape(shape if len(scale) > 1 else [])).round()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.ops.qatx.fake_quantize.default:
            return self.tag(func(*args, **kwargs), args[1])
        if func is aten.convolution.default:
            x, weight, bias, stride, padding, dilation, _, _, groups = args
            sx, sw = self.scale(x), self.scale(weight)
            if sx is not None and sw is not None:
                sums = F.conv2d(
                    self.codes(x, sx),
                    self.codes(weight, sw),
                    None,
                    stride,
                    padding,
                    dilation,
                    groups,
                )
                y = sums.float() * (sx * sw)[:, None, None]
                return y + (0.0 if bias is None else bias[:, None, None])
        if func is aten.addmm.default:
            bias, x, weight = args
            sx, sw = self.scale(x), self.scale(weight)
            if sx is not None and sw is not None:
                sums = self.codes(x, sx) @ self.codes(weight, sw, axis=1)
                return sums.float() * (sx * sw) + bias
        if func in (aten.mean.dim, aten._adaptive_avg_pool2d.default, aten.avg_pool2d.default):
            sx = self.scale(args[0])
            if sx is not None:
                mean = func(self.codes(args[0], sx), *args[1:], **kwargs)
                pixels = round(args[0].shape[-1] * args[0].shape[-2])
                if func is aten.avg_pool2d.default:
                    pixels = args[1][0] * args[1][-1]
                return (mean * pixels).round().float() * (sx / pixels)
        result = func(*args, **kwargs)
        if func in _KEEPS_SCALE and self.scale(args[0]) is not None:
            self.tag(result[0] if isinstance(result, tuple) else result, self.scale(args[0]))
        return result


def evaluate(model: nn.Module, *inputs: Tensor) -> Any:
    """What the converted model must give, bit for bit."""
    with torch.no_grad(), _Contract():
        return model.eval()(*inputs)
