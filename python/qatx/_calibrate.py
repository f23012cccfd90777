"""`calibrate`: sets all scales from data."""

from __future__ import annotations

import copy
import functools
import warnings
from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor, nn

from qatx._batches import ForwardFirst, batches_of, check_num_samples, shown, tensors_in
from qatx._C import (
    ChannelCheck,
    DataCheck,
    MovingCheck,
    Observer,
    QuantSpec,
    few_samples_problems,
    merge_over_ranks,
    sum_over_ranks,
)
from qatx._calibration_report import CalibrationReport, CalibrationRow
from qatx._modes import evaluating
from qatx._ranges import RangeMethod, check_range_method
from qatx._ranks import all_gather_over_ranks
from qatx.nn import FakeQuantize


class CalibrationWarning(UserWarning):
    """Calibration has worked, but its data are few, strange, or do not settle."""


def calibrate(
    model: nn.Module,
    data: Tensor | Iterable[Any],
    *,
    method: RangeMethod | None = None,
    num_samples: int | None = None,
    forward: Callable[[nn.Module, Any], object] | None = None,
    percentile: float = 99.99,
    norm: float = 2.0,
    progress: bool | None = None,
) -> CalibrationReport:
    """Sets the scales and zero points of a prepared model from the values that data leads to.

    The model runs in float, in evaluation mode and without gradients; its modes are restored.
    Afterwards it is ready for evaluation (post-training quantization), training and conversion. It
    may be calibrated again, which forgets what was learned about scales. Where a process group of
    `torch.distributed` is initialized, all ranks have to call this, and each gets the scales that
    belong to the data of all.

    Warns (`CalibrationWarning`) of fewer than 100 samples, of images that look like noise, of
    duplicates, of ranges that still move at the end, and of channels that stand out by far;
    docs/calibration.md has the figures.

    Args:
        model: What `qatx.prepare` returned, or any module that holds modules of `qatx.nn`.
        data: A tensor of samples or an iterable of batches, such as a DataLoader. Of a batch that
            is a tuple or a list the model gets the first element, because the others usually are
            labels. 1,000 to 5,000 representative samples are usual.
        method: How to choose the ranges of activations: "min_max", "moving_average", "percentile",
            "mse", "kl", "lsq" or "best"; None: as their `QConfig` says. The ranges of weights are
            always chosen as their `QConfig` says.
        num_samples: Stop with the batch that reaches so many (on each rank); None: all data.
        forward: Called as `forward(model, batch)` to feed batches of another form.
        percentile: Of "percentile": the share in percent that is kept on each side; more than 50,
            at most 100.
        norm: The power of the error that "mse" minimizes; 1 to 10.
        progress: Whether to show a progress bar; None: if the standard error output is a terminal.

    Returns:
        What was seen and chosen, for `print`.

    Raises:
        TypeError: A batch is not a tensor, nor a tuple or list that starts with one, and there is
            no `forward`.
        ValueError: `model` has nothing to calibrate, `data` is empty, an argument is out of range,
            or a quantized value was never seen or never finite.
        RuntimeError: Another rank has failed.
        Exception: What the model or `data` raises. The model is then as it was before.

    Example:
        >>> report = qatx.calibrate(model, [torch.rand(8, 3, 32, 32) for _ in range(4)])
    """
    fake_quantizes = {
        name: module for name, module in model.named_modules() if isinstance(module, FakeQuantize)
    }
    if not fake_quantizes:
        raise ValueError(
            "qatx.calibrate: the model has nothing to calibrate; call qatx.prepare first"
        )
    if method is not None:
        check_range_method("qatx.calibrate", "method", method)
    check_num_samples("qatx.calibrate", num_samples)
    options = {"percentile": percentile, "norm": norm}
    all_gather = all_gather_over_ranks()
    before = {name: copy.deepcopy(module.state_dict()) for name, module in fake_quantizes.items()}
    run = _Run(fake_quantizes)
    try:
        for fake_quantize in fake_quantizes.values():
            fake_quantize.begin_calibration()
        failure: Exception | None = None
        try:
            batches = shown(batches_of(data, num_samples), "Calibrating", progress)
            with evaluating(model):
                run.feed(model, batches, forward or ForwardFirst("qatx.calibrate"), num_samples)
        except Exception as error:
            failure = error
        # Or the other ranks would wait for this one.
        failures = sum_over_ranks(all_gather, int(failure is not None))
        if failure is not None:
            raise failure
        if failures:
            raise RuntimeError(f"qatx.calibrate: {failures} other ranks have failed")
        merge_over_ranks(
            all_gather, [m.observer for m in fake_quantizes.values() if m.observer is not None]
        )
        rows = _finish(fake_quantizes, method, options)
        samples = sum_over_ranks(all_gather, run.samples)
    except BaseException:
        for name, fake_quantize in fake_quantizes.items():
            fake_quantize.load_state_dict(before[name])
        raise
    finally:
        run.close()
    problems = run.problems(rows, samples)
    for problem in problems:
        warnings.warn(f"qatx.calibrate: {problem}", CalibrationWarning, stacklevel=2)
    return CalibrationReport(rows, samples, tuple(problems))


class _Run:
    """Feeds the data, and watches."""

    def __init__(self, fake_quantizes: dict[str, FakeQuantize]) -> None:
        self._fake_quantizes = fake_quantizes
        self._data = DataCheck()
        self._moving = MovingCheck()
        self._channels = ChannelCheck()
        # Of the first batch only: a look at channels is a second read of each tensor.
        self._hooks = [
            module.register_forward_pre_hook(functools.partial(self._look_at_channels, name))
            for name, module in fake_quantizes.items()
            if module.role == "activation"
        ]

    def _look_at_channels(
        self, name: str, _module: nn.Module, arguments: tuple[Tensor, ...]
    ) -> None:
        self._channels.add_activation(name, arguments[0])

    def feed(
        self,
        model: nn.Module,
        batches: Iterable[Any],
        forward: Callable[[nn.Module, Any], object],
        num_samples: int | None,
    ) -> None:
        """Runs the model on all batches, or until there were `num_samples`."""
        empty = True
        for batch in batches:
            empty = False
            forward(model, batch)
            self.close()
            first = next(tensors_in(batch), None)  # the others usually are labels
            if first is not None:
                self._data.add(first)
            self._moving.add(self._data.samples, self._ranges())
            if num_samples is not None and self._data.samples >= num_samples:
                break
        if empty:
            raise ValueError("qatx.calibrate: data is empty; give at least one batch")

    def _ranges(self) -> list[tuple[str, Tensor, Tensor]]:
        return [
            (name, module.observer.min, module.observer.max)
            for name, module in self._fake_quantizes.items()
            if module.observer is not None
        ]

    def close(self) -> None:
        """Takes the hooks away."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []

    @property
    def samples(self) -> int:
        """How many this rank has seen."""
        return self._data.samples

    def problems(self, rows: tuple[CalibrationRow, ...], samples: int) -> list[str]:
        """What to warn of; `samples` were seen on all ranks."""
        for row in rows:
            if row.role == "weight":
                self._channels.add_weight(row.name, row.choice.low, row.choice.high)
        return [
            *few_samples_problems(samples),
            *self._data.problems(),
            *self._moving.problems(),
            *self._channels.problems(),
        ]


def _finish(
    fake_quantizes: dict[str, FakeQuantize],
    method: RangeMethod | None,
    options: dict[str, float],
) -> tuple[CalibrationRow, ...]:
    rows = []
    problems = []
    for name, module in fake_quantizes.items():
        chosen = module.range_method if method is None or module.role == "weight" else method
        observer = module.observer or _observed(module)
        try:
            choice = module.finish_calibration(chosen, **options)
        except ValueError as error:
            problems.append(f"{name or 'the model'}: {error}")
            continue
        rows.append(
            CalibrationRow(
                name=name,
                role=module.role,
                spec=module.spec,
                method=chosen,
                choice=choice,
                observer=observer,
                options=options,
            )
        )
    if problems:
        raise ValueError(f"qatx.calibrate: {'; '.join(problems)}")
    return tuple(rows)


def _observed(module: FakeQuantize) -> Observer:
    """The histogram of a whole weight."""
    observer = Observer(QuantSpec())
    if module.last_weight is not None:
        observer.observe(module.last_weight.cpu())
    return observer
