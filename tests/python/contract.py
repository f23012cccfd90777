"""An oracle for converted models that shares nothing with the engine but the numeric contract."""

from typing import Any, NamedTuple

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


class _Codes(NamedTuple):
    """What is known of a tensor that consists of codes times a scale."""

    tensor: Tensor  # keeps it alive, so that its id stays its own
    scale: Tensor
    values: Tensor  # what the codes 0..255 (or -128..127) stand for


class _Table(NamedTuple):
    """What is known of a tensor that is a function of codes."""

    tensor: Tensor
    indices: Tensor
    values: Tensor  # 256: by index


class _Contract(TorchDispatchMode):
    """Follows which tensors are codes times a scale, and computes with the codes.

    Sums of products of codes are exact in float64. After them come the contract's float32 steps.
    Functions of one value are computed once for each of 256 codes.
    """

    def __init__(self) -> None:
        super().__init__()
        self.tags: dict[int, _Codes] = {}  # by id
        self.tables: dict[int, _Table] = {}

    def scale(self, x: Any) -> Tensor | None:
        return self.tags[id(x)].scale if id(x) in self.tags else None

    def codes(self, x: Tensor, scale: Tensor, axis: int = 0) -> Tensor:
        shape = [1] * x.dim()
        shape[axis] = -1
        return (x.double() / scale.double().reshape(shape if len(scale) > 1 else [])).round()

    def tag(self, x: Tensor, like: _Codes) -> Tensor:
        self.tags[id(x)] = like._replace(tensor=x)
        return x

    def fake_quantize(self, func: Any, args: Any, kwargs: Any) -> Tensor:
        y = func(*args, **kwargs)
        scale, zero_point, quant_min, quant_max = args[1:5]
        first = -128 if quant_min < 0 else 0
        used = zero_point.round().clamp(quant_min, quant_max)
        steps = torch.arange(first, first + 256) - used.flatten()[0]
        codes = _Codes(y, scale.flatten(), steps.float() * scale.flatten()[0])
        return self.tag(y, codes)

    def table(self, x: Tensor) -> _Table | None:
        """What is known of x as a function of codes."""
        if id(x) in self.tables:
            return self.tables[id(x)]
        if id(x) not in self.tags or len(self.tags[id(x)].scale) > 1:
            return None
        known = self.tags[id(x)]
        first = round(float(known.values[0].double() / known.scale[0].double()))
        return _Table(x, self.codes(x, known.scale).long() - first, known.values)

    def unary(self, func: Any, args: Any, kwargs: Any) -> Tensor | None:
        """The result of a function of one value, where func is one."""
        tensors = [a for a in args if isinstance(a, Tensor)]
        tables = [table for table in map(self.table, tensors) if table is not None]
        if torch.Tag.pointwise not in func.tags or len(tables) != 1 or "out" in kwargs:
            return None
        if sum(a.numel() for a in tensors) != tables[0].tensor.numel() + len(tensors) - 1:
            return None
        (table,) = tables
        replaced = [table.values.clone() if a is table.tensor else a for a in args]
        values = func(*replaced, **kwargs).flatten()
        y = values[table.indices]
        if func.overloadpacket.__name__.endswith("_"):
            y = args[0].copy_(y)
            self.tags.pop(id(y), None)
        self.tables[id(y)] = _Table(y, table.indices, values)
        return y

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.ops.qatx.fake_quantize.default:
            return self.fake_quantize(func, args, kwargs)
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
        unary = self.unary(func, args, kwargs)
        if unary is not None:
            return unary
        result = func(*args, **kwargs)
        if func in _KEEPS_SCALE and id(args[0]) in self.tags:
            self.tag(result[0] if isinstance(result, tuple) else result, self.tags[id(args[0])])
        return result


def evaluate(model: nn.Module, *inputs: Tensor) -> Any:
    """What the converted model must give, bit for bit."""
    with torch.no_grad(), _Contract():
        return model.eval()(*inputs)
