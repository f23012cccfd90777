"""Calls of every operator for a tensor of any layout, for tests that hold for all of them."""

from collections.abc import Callable
from typing import Any, NamedTuple

import qatx  # noqa: F401  (registers the operators)
import torch
from torch import Tensor

ops = torch.ops.qatx


class Call(NamedTuple):
    op: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any] = {}  # noqa: RUF012 (nobody changes it)

    def __call__(self) -> Any:
        return self.op(*self.args, **self.kwargs)


def qparams_dtype(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def _spread(x: Tensor, shape: tuple[int, ...], low: float, high: float) -> Tensor:
    count = max(torch.Size(shape).numel(), 1)
    values = torch.linspace(low, high, count)[: torch.Size(shape).numel()]
    return values.reshape(shape).to(x.device, qparams_dtype(x.dtype))


def qparams(x: Tensor, axis: int | None, group_size: int | None = None) -> tuple[Tensor, Tensor]:
    """Scales and zero points (between integers) of the right shape, all of them different."""
    shape: tuple[int, ...] = () if axis is None else (x.shape[axis],)
    if group_size is not None:
        sizes = list(x.shape)
        sizes[axis] = -(-sizes[axis] // group_size)
        shape = tuple(sizes)
    return _spread(x, shape, 0.2, 0.3), _spread(x, shape, -3.2, 3.4)


def fake_quantize(
    x: Tensor, axis: int | None, group_size: int | None = None, **kwargs: Any
) -> Call:
    args = (x, *qparams(x, axis, group_size), -8, 7, axis, 0.5)
    return Call(ops.fake_quantize.default, args, {"group_size": group_size, **kwargs})


def out(x: Tensor, axis: int | None) -> Call:
    with torch.no_grad():
        call = fake_quantize(x.detach(), axis)
        return Call(ops.fake_quantize.out, call.args, {"out": torch.empty_like(x)})


def backward(x: Tensor, axis: int | None) -> Call:
    call = fake_quantize(x, axis)
    return Call(ops.fake_quantize_backward.default, (torch.ones_like(x), *call.args))


def alpha(x: Tensor, axis: int | None) -> Tensor:
    return qparams(x, axis)[0] * 5


def pact(x: Tensor, axis: int | None) -> Call:
    return Call(ops.pact.default, (x, alpha(x, axis), 15, axis))


def pact_backward(x: Tensor, axis: int | None) -> Call:
    return Call(ops.pact_backward.default, (torch.ones_like(x), x, alpha(x, axis), axis))


def moving_average(x: Tensor, axis: int | None) -> Call:
    high = qparams(x, axis)[0]
    return Call(
        ops.moving_average_fake_quantize.default, (x, -high, high, 0.25, 0, 15, False, axis)
    )


def dynamic(x: Tensor, axis: int | None) -> Call:  # noqa: ARG001 (rows are rows)
    return Call(ops.dynamic_fake_quantize.default, (x, 7))


def dorefa_weight(x: Tensor, axis: int | None) -> Call:
    return Call(ops.dorefa_weight.default, (x, 4, axis))


def quantize(x: Tensor, axis: int | None) -> Call:
    return Call(ops.quantize.default, (x, *qparams(x, axis), -8, 7, axis))


def quantize_dequantize(x: Tensor, axis: int | None) -> Call:
    return Call(ops.quantize_dequantize.default, (x, *qparams(x, axis), -8, 7, axis))


def dequantize(x: Tensor, axis: int | None) -> Call:
    """Of the codes of x, which lie as x does."""
    codes = torch.empty_like(x, dtype=torch.int8, requires_grad=False)
    if not x.is_meta:
        codes.copy_((x * 7).nan_to_num().clamp(-128, 127))
    return Call(ops.dequantize.default, (codes, *qparams(x, axis), axis), {"dtype": x.dtype})


def seeded(x: Tensor, axis: int | None) -> Call:
    return fake_quantize(x, axis, seed=torch.tensor(5, device=x.device))


def pass_through(x: Tensor, axis: int | None) -> Call:
    return fake_quantize(x, axis, pass_through=True)


def grouped(x: Tensor, axis: int | None) -> Call:
    return fake_quantize(x, axis, None if axis is None else 2)


# Every operator for x and an axis (None: per tensor).
CALLS: dict[str, Callable[[Tensor, int | None], Call]] = {
    "fake_quantize": fake_quantize,
    "groups": grouped,
    "pass_through": pass_through,
    "seed": seeded,
    "out": out,
    "fake_quantize_backward": backward,
    "pact": pact,
    "pact_backward": pact_backward,
    "moving_average": moving_average,
    "dorefa_weight": dorefa_weight,
    "dynamic": dynamic,
    "quantize": quantize,
    "dequantize": dequantize,
    "quantize_dequantize": quantize_dequantize,
}
DIFFERENTIABLE = (
    "fake_quantize",
    "groups",
    "pass_through",
    "seed",
    "pact",
    "moving_average",
    "dorefa_weight",
    "dynamic",
)


def tensors(result: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (result,) if isinstance(result, Tensor) else tuple(result)
