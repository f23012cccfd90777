"""`verify`: whether a converted model computes what the trained one does."""

from __future__ import annotations

import copy
import io
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from rich import box
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from qatx import _C, _torchscript
from qatx._batches import first_tensor
from qatx.nn import FakeQuantize

#: Up to this share of codes may differ by one where float sums of the trained model round
#: otherwise than exact integer sums.
ROUNDING_SHARE = 1e-4

#: What differs behind such values agrees at least so well, in decibels.
LEAST_SQNR_BEHIND = 30.0

#: Outputs that agree less, in decibels, differ for another reason than rounding.
LEAST_OUTPUTS_SQNR = 20.0


@dataclass(frozen=True, kw_only=True)
class VerificationRow:
    """One quantized value of the trained model, in both models, over all data.

    Attributes:
        name: Path of the fake quantizer.
        elements: How many were compared; 0 where the converted model does not hold the value in
            integers.
        different: Elements whose codes differ.
        largest: The largest difference, in codes.
        sqnr: Signal to noise in decibels, the noise being the difference; infinite where there is
            none.
    """

    name: str
    elements: int
    different: int
    largest: int
    sqnr: float

    @property
    def equal(self) -> bool:
        """No code differs."""
        return self.different == 0

    @property
    def rounding_only(self) -> bool:
        """Codes differ by one at most, in a share of `ROUNDING_SHARE` at most."""
        return self.largest <= 1 and self.different <= ROUNDING_SHARE * self.elements


@dataclass(frozen=True)
class Verification:
    """What `qatx.verify` found; `print` shows it as a table.

    Attributes:
        rows: One for each quantized value, in the order in which the trained model makes them.
        outputs_sqnr: Signal to noise of the models' outputs, in decibels.
    """

    rows: tuple[VerificationRow, ...]
    outputs_sqnr: float

    @property
    def ok(self) -> bool:
        """Whether nothing differs but by rounding and what follows from it; outputs agree."""
        return self._first_different is None and self._outputs_agree

    @property
    def _first_different(self) -> VerificationRow | None:
        """The first value that differs by more than rounding.

        Behind values that differ by rounding others do, too, and by more than one code where a
        function is steep.
        """
        rounded = False
        for row in self.rows:
            if not row.rounding_only and not (rounded and row.sqnr >= LEAST_SQNR_BEHIND):
                return row
            rounded |= row.different > 0
        return None

    @property
    def _outputs_agree(self) -> bool:
        return self.outputs_sqnr >= LEAST_OUTPUTS_SQNR

    @property
    def verdict(self) -> str:
        """One sentence."""
        compared = [row for row in self.rows if row.elements]
        if not compared:
            return "Nothing runs in integers: there is nothing to compare."
        first = self._first_different
        if not self._outputs_agree and first is None:
            return (
                f"Different: no quantized value shows why, but the outputs agree to "
                f"{self.outputs_sqnr:.1f} dB only, less than {LEAST_OUTPUTS_SQNR:.0f} dB."
            )
        if all(row.equal for row in compared):
            return f"Equal: no code differs in {len(compared)} quantized values."
        if first is None:
            share = max(row.different / row.elements for row in compared)
            return (
                f"Equal but for rounding: codes differ in {share:.4%} of the elements of a value "
                f"at most, by {max(row.largest for row in compared)} at most."
            )
        return (
            f"Different: first at {first.name}, where {first.different:,} of {first.elements:,} "
            f"codes differ, by up to {first.largest}."
        )

    def table(self, *, width: int = 120) -> str:
        """The comparison as text.

        Args:
            width: Columns of characters.
        """
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        table.add_column("value", overflow="fold")
        for name in ("elements", "different codes", "largest", "SQNR [dB]"):
            table.add_column(name, justify="right")
        for row in self.rows:
            if row.elements:
                sqnr = "" if math.isinf(row.sqnr) else f"{row.sqnr:.1f}"
                table.add_row(
                    row.name, f"{row.elements:,}", f"{row.different:,}", str(row.largest), sqnr
                )
            else:
                table.add_row(row.name, "not in integers", "", "", "")
        console = Console(
            width=width, file=io.StringIO(), color_system=None, markup=False, highlight=False
        )
        with console.capture() as captured:
            console.print(table)
            console.print(f"Outputs: {self.outputs_sqnr:.1f} dB. {self.verdict}")
        return "\n".join(line.rstrip() for line in captured.get().splitlines())

    def __str__(self) -> str:
        return self.table()


@torch.no_grad()
def verify(
    model: nn.Module, converted: torch.jit.ScriptModule, data: Tensor | Iterable[Any]
) -> Verification:
    """Compares a converted model with the model in training form that it was made of.

    Both run on the data in evaluation mode. Each value that the model quantizes is compared with
    the codes that the converted model holds for it. The trained model adds its products in float32,
    the converted one exactly, so single codes on the border between two may differ.

    Args:
        model: What `qatx.convert` took; it is not changed.
        converted: What it returned, or what `qatx.load` did.
        data: A tensor (one batch) or an iterable of batches. A batch is a tensor, or a tuple or
            list that starts with one (the rest is taken for labels).

    Returns:
        A row for each quantized value, and a verdict.

    Raises:
        TypeError: A batch is something else.
        ValueError: `data` is empty, or `model` has no quantization.

    Example:
        >>> print(qatx.verify(model, converted, batches).verdict)
        Equal...
    """
    trained = copy.deepcopy(model).eval()
    names = {module: name for name, module in trained.named_modules() if _is_activation(module)}
    if not names:
        raise ValueError(
            "qatx.verify: model has no quantization; give what qatx.convert took, not the float "
            "model"
        )
    archive = io.BytesIO()
    _torchscript.save(converted, archive)
    recorder = _C.Recorder(archive.getvalue())
    totals: dict[str, _Total] = {}
    outputs = _Total()
    made: list[tuple[str, Tensor]] = []

    def remember(module: nn.Module, _inputs: object, output: Tensor) -> None:
        made.append((names[module], output))

    hooks = [module.register_forward_hook(remember) for module in names]
    try:
        for batch in [data] if isinstance(data, Tensor) else data:
            x = first_tensor("qatx.verify", batch)
            made.clear()
            expected = trained(x)
            held: dict[str, list[tuple[float, Tensor]]] = {}
            for name, scale, value in recorder.run([x]):
                held.setdefault(name, []).append((scale, value))
            for name, value in made:
                total = totals.setdefault(name, _Total())
                if held.get(name):
                    scale, codes = held[name].pop(0)
                    total.add(value, codes.reshape(value.shape), scale)
            outputs.add(_flat(expected), _flat(converted(x)), 1.0)
    finally:
        for hook in hooks:
            hook.remove()
    if not totals:
        raise ValueError("qatx.verify: data is empty; give at least one batch")
    return Verification(
        tuple(total.row(name) for name, total in totals.items()), outputs.row("").sqnr
    )


class _Total:
    """Sums over batches."""

    def __init__(self) -> None:
        self.elements = self.different = self.largest = 0
        self.signal = self.noise = 0.0

    def add(self, expected: Tensor, actual: Tensor, scale: float) -> None:
        error = expected.double() - actual.double()
        codes = (error / scale).round().abs()
        self.elements += codes.numel()
        self.different += int(codes.count_nonzero())
        self.largest = max(self.largest, int(codes.max())) if codes.numel() else self.largest
        self.signal += float(expected.double().square().sum())
        self.noise += float(error.square().sum())

    def row(self, name: str) -> VerificationRow:
        if self.noise == 0:
            sqnr = math.inf
        else:
            sqnr = 10 * math.log10(self.signal / self.noise) if self.signal else -math.inf
        return VerificationRow(
            name=name,
            elements=self.elements,
            different=self.different,
            largest=self.largest,
            sqnr=sqnr,
        )


def _is_activation(module: nn.Module) -> bool:
    return isinstance(module, FakeQuantize) and module.role == "activation"


def _flat(output: object) -> Tensor:
    """All tensors of an output, one after the other."""
    leaves: list[Any] = torch.utils._pytree.tree_leaves(output)
    return torch.cat([leaf.flatten() for leaf in leaves if isinstance(leaf, Tensor)])
