"""Visits the layers of a calibrated model in the order in which they run.

At each layer the method sees what the layer gets in the quantized model as it is by then, and what
it gets in the float one, so that a layer makes up for the errors of those before it.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from qatx._batches import ForwardFirst, batches_of, check_num_samples, limited
from qatx._calibrated import check_calibrated
from qatx._modes import evaluating
from qatx._prepare import prepare
from qatx.nn import FakeQuantize
from qatx.nn._layer import ProductLayer

Forward = Callable[[nn.Module, Any], object]


class LayerByLayer:
    """A calibrated model beside what it should compute, and the data to run both with.

    Args:
        owner: The function that asks, for error messages.
        model: The calibrated model.
        data, num_samples, forward: As in `qatx.calibrate`; held in memory.
        reference: The model whose outputs are wanted; None: `model` without quantization.

    Raises:
        TypeError, ValueError: As the functions of `qatx.ptq` say.
    """

    def __init__(
        self,
        owner: str,
        model: nn.Module,
        data: Tensor | Iterable[Any],
        *,
        num_samples: int | None,
        forward: Forward | None,
        reference: nn.Module | None,
    ) -> None:
        if not isinstance(model, nn.Module):
            raise TypeError(f"{owner}: model must be a torch.nn.Module, got {type(model).__name__}")
        check_calibrated(owner, model)
        check_num_samples(owner, num_samples)
        self._model = model
        self.layers = _layers_of(model)
        if not self.layers:
            raise ValueError(f"{owner}: the model has no layer with a quantized weight")
        if reference is None:
            self._check_not_rounded(owner)
        self._reference = _without_quantization(model if reference is None else reference)
        self._references = _layers_of(self._reference)
        self._check_reference(owner)
        self._batches = list(limited(batches_of(data, num_samples), num_samples))
        if not self._batches:
            raise ValueError(f"{owner}: data is empty; give at least one batch")
        self._forward = forward or ForwardFirst(owner)

    def _check_not_rounded(self, owner: str) -> None:
        """With weights that are rounded already, the model does not know what it should compute."""
        if all(map(_is_rounded, self.layers.values())):
            raise ValueError(
                f"{owner}: the model's weights are rounded already, so it does not say what it "
                "should compute; give the argument reference: the float model, or a copy of the "
                "prepared model from before"
            )

    def _check_reference(self, owner: str) -> None:
        for name, layer in self.layers.items():
            other = self._references.get(name)
            if other is None or other.weight.shape != layer.weight.shape:
                found = "none" if other is None else f"one of {tuple(other.weight.shape)}"
                raise ValueError(
                    f"{owner}: reference must have the layers of model: at {name or 'the root'} "
                    f"there must be a weight of {tuple(layer.weight.shape)}, got {found}"
                )

    @contextmanager
    def running(self) -> Iterator[list[str]]:
        """Evaluation mode, without gradients; on an error all layers are as they were before.

        Yields:
            The layers that the data reach, in the order in which they run.
        """
        before = [
            (layer, layer.bias is None, copy.deepcopy(layer.state_dict()))
            for layer in self.layers.values()
        ]
        try:
            with evaluating(self._model, self._reference):
                yield self._order()
        except BaseException:
            for layer, had_no_bias, state in before:
                if had_no_bias:
                    layer.bias = None
                layer.load_state_dict(state)
            raise

    def visit(self, name: str) -> Iterator[Call]:
        """What a layer gets, call by call, in both models."""
        layer, reference = self.layers[name], self._references[name]
        for batch in self._batches:
            quantized = self._inputs_of(self._model, layer, batch, self._calls[name])
            exact = self._inputs_of(self._reference, reference, batch, self._calls[name])
            for x, wanted in zip(quantized, exact, strict=True):
                y = reference._multiply(
                    wanted, reference._deployed_weight(), reference._deployed_bias()
                )
                yield Call(x, y)

    def _order(self) -> list[str]:
        names = {layer: name for name, layer in self.layers.items()}
        calls: Counter[str] = Counter()

        def count(layer: nn.Module, _inputs: object) -> None:
            calls[names[layer]] += 1  # type: ignore[index]

        hooks = [layer.register_forward_pre_hook(count) for layer in self.layers.values()]
        try:
            self._forward(self._model, self._batches[0])
        finally:
            for hook in hooks:
                hook.remove()
        self._calls = calls
        return list(calls)

    def _inputs_of(
        self, model: nn.Module, layer: nn.Module, batch: object, calls: int
    ) -> list[Tensor]:
        """What a layer gets from a batch; the model runs no further than to its last call."""
        inputs: list[Tensor] = []

        def remember(_layer: nn.Module, args: tuple[Any, ...], named: dict[str, Any]) -> None:
            inputs.append(args[0] if args else named["input"])
            if len(inputs) == calls:
                raise _ReachedError

        hook = layer.register_forward_pre_hook(remember, with_kwargs=True)
        try:
            self._forward(model, batch)
        except _ReachedError:
            pass
        finally:
            hook.remove()
        return inputs


@dataclass(frozen=True)
class Call:
    """One call of a layer.

    Attributes:
        x: What it gets in the quantized model.
        y: What it should compute, before the ReLU.
    """

    x: Tensor
    y: Tensor


class _ReachedError(BaseException):
    """Not an error for anybody in between."""


def _layers_of(model: nn.Module) -> dict[str, ProductLayer]:
    return {name: m for name, m in model.named_modules() if isinstance(m, ProductLayer)}


def _is_rounded(layer: ProductLayer) -> bool:
    with evaluating(layer):
        weight = layer._deployed_weight()
        return weight.allclose(layer.weight_fake_quantize(weight), rtol=1e-5, atol=0.0)


def _without_quantization(model: nn.Module) -> nn.Module:
    """A copy that computes in float."""
    if not _layers_of(model):
        return _without_quantization(prepare(model))
    twin = copy.deepcopy(model)
    for name, module in list(twin.named_modules(remove_duplicate=False)):
        if isinstance(module, FakeQuantize):
            twin.set_submodule(name, nn.Identity())
    return twin
