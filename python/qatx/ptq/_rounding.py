"""Choosing how the weights of a model are rounded, layer by layer."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from qatx._batches import shown
from qatx._C import OutputError
from qatx.nn import FakeQuantize
from qatx.nn._layer import ProductLayer
from qatx.ptq._layer_by_layer import LayerByLayer
from qatx.ptq._layer_rows import rows_of, weight_matrix
from qatx.ptq._report import PtqReport, PtqRow

MEASURE = "squared error of the layer's output, relative to its square"

#: (error, weight, scale, zero_point, quant_min, quant_max) to rounded weights.
Solver = Callable[[OutputError, Tensor, Tensor, Tensor, int, int], Tensor]


def round_weights(
    method: str, session: LayerByLayer, solve: Solver, progress: bool | None
) -> PtqReport:
    """Writes rounded weights into the layers, so that rounding them to nearest changes nothing."""
    rows = []
    seen: dict[int, str] = {}
    with session.running() as order:
        for name in shown(order, method, progress):
            layer = session.layers[name]
            first = seen.setdefault(id(layer.weight), name)
            if first != name:
                rows.append(PtqRow(name=name, note=f"shares the weight of {first}"))
                continue
            try:
                grid = _grid(layer.weight_fake_quantize, layer._deployed_weight())
            except NotImplementedError as error:
                rows.append(PtqRow(name=name, note=str(error)))
                continue
            try:
                rows.append(_round(session, name, grid, solve))
            except ValueError as error:
                raise ValueError(f"qatx.ptq.{method}: {name or 'the model'}: {error}") from error
    return report_of(method, session, order, rows)


def report_of(
    method: str, session: LayerByLayer, order: list[str], rows: list[PtqRow]
) -> PtqReport:
    """The rows of the layers that the data reach, and of all others."""
    unreached = [name for name in session.layers if name not in order]
    notes = [PtqRow(name=name, note="the data do not reach it") for name in unreached]
    return PtqReport(method, MEASURE, (*rows, *notes))


def _round(session: LayerByLayer, name: str, grid: tuple[Tensor, Tensor], solve: Solver) -> PtqRow:
    layer = session.layers[name]
    deployed, bias = layer._deployed_weight(), layer._deployed_bias()
    weight = weight_matrix(layer, deployed).cpu()
    error = OutputError(*weight.shape)
    for call in session.visit(name):
        for x, y in rows_of(layer, call.x, _less_bias(layer, call.y, bias)):
            error.add(x.cpu(), y.cpu())
    before = error(weight_matrix(layer, layer.weight_fake_quantize(deployed)).cpu())
    scale, zero_point = (weight_matrix(layer, t).cpu().contiguous() for t in grid)
    spec = layer.weight_fake_quantize.spec
    rounded = solve(error, weight, scale, zero_point, spec.quant_min, spec.quant_max)
    layer._set_deployed_weight(rounded.reshape(deployed.shape).to(deployed.device))
    after = error(rounded)
    square = float(error.squares.sum())
    return PtqRow(name=name, before=_relative(before, square), after=_relative(after, square))


def _less_bias(layer: ProductLayer, y: Tensor, bias: Tensor | None) -> Tensor:
    """What the product with the weight should be."""
    return y if bias is None else y - per_channel(layer, bias)


def per_channel(layer: ProductLayer, values: Tensor) -> Tensor:
    """A number for each output channel, in a shape that goes with the layer's output."""
    kernel = getattr(layer, "kernel_size", ())
    return values.reshape(-1, *[1] * len(kernel))


def _relative(error: Tensor, square: float) -> float:
    return float(error.sum()) / square if square > 0 else 0.0


def _grid(fake_quantize: FakeQuantize, weight: Tensor) -> tuple[Tensor, Tensor]:
    """The scale and the zero point in use for each element of a weight."""
    spec = fake_quantize.spec
    scale, zero_point = fake_quantize._qparams()
    zero_point = zero_point.round().clamp(spec.quant_min, spec.quant_max)
    return _for_elements(fake_quantize, scale, weight), _for_elements(
        fake_quantize, zero_point, weight
    )


def _for_elements(fake_quantize: FakeQuantize, values: Tensor, weight: Tensor) -> Tensor:
    spec = fake_quantize.spec
    if spec.axis is None:
        return values.expand(weight.shape)
    axis = spec.axis % weight.dim()
    if spec.group_size is not None:
        repeated = values.repeat_interleave(spec.group_size, axis)
        return repeated.narrow(axis, 0, weight.shape[axis])
    shape = [1] * weight.dim()
    shape[axis] = -1
    return torch.reshape(values, shape).expand(weight.shape)
