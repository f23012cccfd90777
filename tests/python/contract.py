"""An oracle for converted models that shares nothing with the engine but the numeric contract."""

import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

# Weakest first.
INSTRUCTION_SETS = ["reference", "avx2", "avx512", "vnni", "amx"]

aten = torch.ops.aten
# Their results consist of elements of their inputs, and zeros.
_KEEPS_SCALE = {
    *("max_pool3d_with_indices", "max", "unbind"),
    *("view", "_unsafe_view", "t", "max_pool2d_with_indices", "clone", "detach", "permute"),
    *("transpose", "slice", "select", "split", "split_with_sizes", "cat", "unsqueeze", "squeeze"),
    *("constant_pad_nd", "reflection_pad1d", "reflection_pad2d", "replication_pad1d"),
    *("replication_pad2d", "upsample_nearest1d", "upsample_nearest2d", "pixel_shuffle"),
    *("_upsample_nearest_exact1d", "_upsample_nearest_exact2d", "pixel_unshuffle"),
    *(
        "channel_shuffle",
        "native_channel_shuffle",
        "expand",
        "_reshape_alias",
        "alias",
        "flip",
        "amax",
    ),
}


_KEEPS_ROWS = {
    *(aten.view.default, aten._unsafe_view.default, aten.clone.default, aten.expand.default),
}
_KEEPS_SCORES = {
    *(aten.add.Tensor, aten.div.Tensor, aten.mul.Tensor, aten.where.self, aten.where.ScalarOther),
    *(aten.masked_fill.Scalar, aten.masked_fill.Tensor, aten.transpose.int, aten.permute.default),
    *(aten._unsafe_view.default, aten.view.default),
}


def bilinear(steps: Tensor, size: list[int], align: bool, factors: list[float | None]) -> Tensor:
    """Interpolation by the contract's float32 operations, of codes less the zero point."""

    def axis(n: int, out: int, factor: float | None) -> tuple[Tensor, Tensor, Tensor]:
        i = torch.arange(out).float()
        if align:
            at = i * (torch.tensor(float(n - 1)) / (out - 1) if out > 1 else 0.0)
        else:
            step = torch.tensor(n / out if factor is None else 1 / factor, dtype=torch.float32)
            at = (step * (i + 0.5) - 0.5).clamp(min=0)
        first = at.long().clamp(max=n - 1)
        return first, (first + 1).clamp(max=n - 1), (at - first).clamp(0, 1)

    height, width = steps.shape[2:]
    top, bottom, v = axis(height, size[0], factors[0] if factors else None)
    left, right, h = axis(width, size[1], factors[1] if factors else None)
    rows = [
        steps[:, :, row][..., left] * (1 - h) + steps[:, :, row][..., right] * h
        for row in (top, bottom)
    ]
    return rows[0] * (1 - v)[:, None] + rows[1] * v[:, None]


def average(
    codes: Tensor,
    kernel: list[int],
    stride: list[int] | None = None,
    padding: Sequence[int] = (0,),
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> tuple[Tensor, Tensor]:
    """The sums of an average pooling, and what each is divided by."""
    dims = codes.dim() - 2
    kernel, padding = (list(v) * (dims if len(v) == 1 else 1) for v in (kernel, padding))
    stride = list(stride or kernel) * (dims if stride and len(stride) == 1 else 1)
    windows = []
    for n, k, s, p in zip(codes.shape[2:], kernel, stride, padding, strict=True):
        count = -(-(n + 2 * p - k) // s) + 1 if ceil_mode else (n + 2 * p - k) // s + 1
        if ceil_mode and (count - 1) * s >= n + p:  # a window may not begin in the padding behind
            count -= 1
        windows.append([(i * s - p, min(i * s - p + k, n + p), n) for i in range(count)])
    sums, divisors = [], []
    for window in itertools.product(*windows):
        inside = [slice(max(first, 0), min(last, n)) for first, last, n in window]
        part = codes[(slice(None), slice(None), *inside)]
        sums.append(part.flatten(2).sum(2))
        counted = math.prod(last - first for first, last, _ in window)
        if not count_include_pad:
            counted = math.prod(part.shape[2:])
        divisors.append(divisor_override or counted)
    size = [len(w) for w in windows]
    divisor = torch.tensor(divisors, dtype=torch.float32).reshape(size)
    return torch.stack(sums, -1).reshape(*codes.shape[:2], *size), divisor


def lane_sum(x: Tensor) -> Tensor:
    """The sum along the last dimension in 16 lanes, which are then added in halves."""
    n = x.size(-1)
    lanes = torch.zeros(*x.shape[:-1], 16)
    for i in range(0, n, 16):
        part = x[..., i : i + 16]
        lanes[..., : part.size(-1)] += part
    while lanes.size(-1) > 1:
        lanes = lanes[..., : lanes.size(-1) // 2] + lanes[..., lanes.size(-1) // 2 :]
    return lanes


def softmax(x: Tensor) -> Tensor:
    """Along the last dimension, by the contract's float32 operations."""
    u = x - x.amax(-1, keepdim=True)
    k = (u.clamp(min=-87) * 1.44269504088896341).round()
    r = (u.clamp(min=-87) - k * 0.693359375) - k * -2.12194440e-4
    p = torch.full_like(r, 1.9875691500e-4)
    for c in (1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1):
        p = p * r + c
    e = ((p * (r * r) + r) + 1) * torch.exp2(k.double()).float()
    e = torch.where(u < -87, 0.0, e)
    return e * (1 / lane_sum(e))


def layer_norm(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    """Along the last dimension, by the contract's float32 operations."""
    d = x - lane_sum(x) / x.size(-1)
    variance = lane_sum(d * d) / x.size(-1) + eps
    factor = 1 / variance.double().sqrt().float()  # torch's own of float32 is not rounded correctly
    return (d * factor) * (1.0 if weight is None else weight) + (0.0 if bias is None else bias)


class _Codes(NamedTuple):
    """What is known of a tensor that consists of codes times a scale."""

    tensor: Tensor  # keeps it alive, so that its id stays its own
    scale: Tensor
    values: Tensor  # what the codes 0..255 (or -128..127) stand for


class _Rows(NamedTuple):
    """What is known of a tensor whose rows are codes, each times a scale of its own."""

    tensor: Tensor
    codes: Tensor
    scale: Tensor  # of one element in the place of each row


class _Table(NamedTuple):
    """What is known of a tensor that is a function of codes."""

    tensor: Tensor
    indices: Tensor
    values: Tensor  # [256]; or [C, 256], for each index along `axis`
    axis: int = -1


class _Contract(TorchDispatchMode):
    """Follows which tensors are codes times a scale, and computes with the codes.

    Sums of products of codes are exact in float64. After them come the contract's float32 steps.
    Functions of one value are computed once for each of 256 codes.
    """

    def __init__(self) -> None:
        super().__init__()
        self.tags: dict[int, _Codes] = {}  # by id
        self.tables: dict[int, _Table] = {}
        self.rows: dict[int, _Rows] = {}
        self.scores: dict[int, Tensor] = {}  # products of two tensors of codes, scaled and masked

    def scale(self, x: Any) -> Tensor | None:
        return self.tags[id(x)].scale if id(x) in self.tags else None

    def codes(self, x: Tensor, scale: Tensor, axis: int = 0) -> Tensor:
        shape = [1] * x.dim()
        shape[axis] = -1
        return (x.double() / scale.double().reshape(shape if len(scale) > 1 else [])).round()

    def tag(self, x: Tensor, like: _Codes) -> Tensor:
        self.tags[id(x)] = like._replace(tensor=x)
        return x

    def fake_quantize(
        self, y: Tensor, scale: Tensor, zero_point: Tensor, quant_min: int, quant_max: int
    ) -> Tensor:
        first = -128 if quant_min < 0 else 0
        used = zero_point.round().clamp(quant_min, quant_max)
        steps = torch.arange(first, first + 256) - used.flatten()[0]
        codes = _Codes(y, scale.flatten(), steps.float() * scale.flatten()[0])
        return self.tag(y, codes)

    def dynamic(self, x: Tensor, quant_max: int) -> tuple[Tensor, Tensor]:
        """Codes of rows, whose scales are NaN where a row has a NaN."""
        largest = torch.where(x.isfinite(), x.abs(), 0.0).amax(-1, keepdim=True)
        scale = (largest.double() / quant_max).clamp(2.0**-126, 2.0**126).float()
        scale = torch.where(largest == 0, 1.0, scale)
        codes = (x * (1 / scale)).round().clamp(-quant_max, quant_max)
        y = (codes + 0.0) * scale
        lost = codes.isnan()
        self.rows[id(y)] = _Rows(
            y, codes.nan_to_num(), scale.masked_fill(lost.any(-1, keepdim=True), math.nan)
        )
        return y, scale.squeeze(-1)

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
        (table,) = tables
        shape = table.tensor.shape
        others = [a.reshape([1] * (len(shape) - a.dim()) + list(a.shape)) for a in tensors]
        others = [a for a in others if a.numel() > 1 and a.shape != shape]
        axes = {d for a in others for d, n in enumerate(a.shape) if n > 1}
        if len(axes) > 1 or sum(a.numel() for a in tensors if a.shape == shape) != shape.numel():
            return None

        def apply(values: Tensor, index: int | None) -> Tensor:
            def argument(a: Any) -> Any:
                if a is table.tensor:
                    return values.clone()
                by_index = isinstance(a, Tensor) and a.numel() > 1 and index is not None
                return a.flatten()[index] if by_index else a

            result: Tensor = func(*map(argument, args), **kwargs)
            return result.flatten()

        if axes:
            count = shape[next(iter(axes))]
            rows = table.values if table.values.dim() == 2 else table.values.expand(count, -1)
            values = torch.stack([apply(row, c) for c, row in enumerate(rows)])
            table = table._replace(axis=next(iter(axes)))
        else:
            values = torch.stack([apply(row, None) for row in table.values.view(-1, 256)])
            values = values.view(table.values.shape)
        return self.look_up(func, args, table._replace(values=values))

    def look_up(self, func: Any, args: Any, table: _Table) -> Tensor:
        """The result of a function whose values are known."""
        y = table.values[table.indices] if table.values.dim() == 1 else self.by_axis(table)
        if func.overloadpacket.__name__.endswith("_"):
            y = args[0].copy_(y)
            self.tags.pop(id(y), None)
        self.tables[id(y)] = table._replace(tensor=y)
        return y

    def by_axis(self, table: _Table) -> Tensor:
        shape = [1] * table.indices.dim()
        shape[table.axis] = -1
        return table.values[torch.arange(len(table.values)).reshape(shape), table.indices]

    def batch_norm(self, func: Any, args: Any) -> tuple[Tensor, ...]:
        """Of a function of one value by PyTorch's operator, for all 256 values of each channel."""
        table = self.table(args[0])
        channels = args[0].shape[1]
        values = table.values.expand(channels, 256).t().contiguous()
        values = values.view(256, channels, *[1] * (args[0].dim() - 2))
        values = func(values, *args[1:])[0].view(256, channels).t()
        y = self.look_up(func, args, table._replace(values=values.contiguous(), axis=1))
        return y, torch.empty(0), torch.empty(0)

    def adaptive_average(self, x: Tensor, size: list[int]) -> Tensor:
        """Of each part of an image or a volume, whose sizes may differ by one."""
        scale = self.scale(x)
        codes = self.codes(x, scale)
        means = []
        for place in itertools.product(*(range(n) for n in size)):
            part = codes[
                (
                    *(slice(None), slice(None)),
                    *(
                        slice(i * n // out, -(-(i + 1) * n // out))
                        for i, n, out in zip(place, x.shape[2:], size, strict=True)
                    ),
                )
            ].flatten(2)
            means.append(part.sum(2).float() * (scale / part.size(2)))
        return torch.stack(means, -1).reshape(*x.shape[:2], *size)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.ops.qatx.fake_quantize.default:
            return self.fake_quantize(func(*args, **kwargs), *args[1:5])
        if func is torch.ops.qatx.pact.default:
            y, (_, alpha, quant_max) = func(*args, **kwargs), args[:3]
            return self.fake_quantize(y, alpha / quant_max, torch.zeros(()), 0, quant_max)
        if func is aten.convolution.default:
            x, weight, bias, *geometry = args
            sx, sw = self.scale(x), self.scale(weight)
            if sx is not None and sw is not None:
                groups = geometry[5] if geometry[3] else 1
                by_group = weight.unflatten(0, (groups, -1))
                along = [groups, 1, -1] if geometry[3] else [1, -1, 1]
                scales = sw.reshape(along + [1] * (x.dim() - 2)) if len(sw) > 1 else sw
                codes = (by_group.double() / scales.double()).round().flatten(0, 1)
                sums = func(self.codes(x, sx), codes, None, *geometry).contiguous()
                shape = [-1] + [1] * (x.dim() - 2)
                y = sums.float() * (sx * sw).reshape(shape)
                return y + (0.0 if bias is None else bias.reshape(shape))
        if func is torch.ops.qatx.dynamic_fake_quantize.default:
            return self.dynamic(*args)
        if func in (aten.addmm.default, aten.mm.default, aten.bmm.default):
            bias, x, weight = args if len(args) == 3 else (torch.zeros(()), *args)
            if id(x) in self.rows:
                rows, sw = self.rows[id(x)], self.scale(weight)
                sums = rows.codes.double() @ self.codes(weight, sw, axis=-1)
                return (sums.float() * sw) * rows.scale + bias
            sx, sw = self.scale(x), self.scale(weight)
            if sx is not None and sw is not None:
                sums = self.codes(x, sx) @ self.codes(weight, sw, axis=-1)
                y = sums.float() * (sx * sw) + bias
                if func is aten.bmm.default:
                    self.scores[id(y)] = y
                return y
        if func is aten._softmax.default and args[1] in (-1, args[0].dim() - 1):
            return softmax(args[0])
        if func is aten.native_layer_norm.default:
            x, _, weight, bias, eps = args
            return layer_norm(x, weight, bias, eps), torch.empty(0), torch.empty(0)
        if func is aten.log_sigmoid_forward.default and self.table(args[0]) is not None:
            table = self.table(args[0])
            values, _ = func(table.values.contiguous())
            return self.look_up(func, args, table._replace(values=values)), torch.empty(0)
        if func is aten.native_batch_norm.default and self.table(args[0]) is not None:
            return self.batch_norm(func, args)
        if func in (aten.mean.dim, aten.mean.default):
            sx = self.scale(args[0])
            if sx is not None:
                mean = func(self.codes(args[0], sx), *args[1:], **kwargs)
                elements = round(args[0].numel() / mean.numel())
                return (mean * elements).round().float() * (sx / elements)
        if func in (aten.avg_pool2d.default, aten.avg_pool3d.default):
            sx = self.scale(args[0])
            if sx is not None:
                sums, divisors = average(self.codes(args[0], sx), *args[1:], **kwargs)
                return sums.float() * (sx / divisors)
        adaptive = (aten._adaptive_avg_pool2d.default, aten._adaptive_avg_pool3d.default)
        if func in adaptive and self.scale(args[0]) is not None:
            return self.adaptive_average(*args)
        if func is aten.upsample_bilinear2d.default and self.scale(args[0]) is not None:
            x, size, align, *factors = args
            scale = self.scale(x)
            return bilinear(self.codes(x, scale).float(), size, align, factors) * scale
        if func.overloadpacket.__name__ not in _KEEPS_SCALE:
            unary = self.unary(func, args, kwargs)
            if unary is not None:
                return unary
        result = func(*args, **kwargs)
        if func in _KEEPS_ROWS and id(args[0]) in self.rows:
            _, codes, scale = self.rows[id(args[0])]
            sizes = (*result.shape[:-1], 1)
            self.rows[id(result)] = _Rows(result, codes.reshape(result.shape), scale.reshape(sizes))
        if func in _KEEPS_SCORES and any(id(x) in self.scores for x in args):
            self.scores[id(result)] = result
        if func.overloadpacket.__name__ in _KEEPS_SCALE:
            inputs = args[0] if isinstance(args[0], (list, tuple)) else [args[0]]
            tags = [self.tags.get(id(x)) for x in inputs]
            if all(t and torch.equal(t.values, tags[0].values) for t in tags):
                for y in result if isinstance(result, (list, tuple)) else [result]:
                    self.tag(y, tags[0])
        return result


def evaluate(model: nn.Module, *inputs: Tensor) -> Any:
    """What the converted model must give, bit for bit."""
    with torch.no_grad(), _Contract():
        return model.eval()(*inputs)
