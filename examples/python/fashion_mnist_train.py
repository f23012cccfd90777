"""One training loop for the float network and for its fake-quantized form."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from fashion_mnist_data import Dataset
from fashion_mnist_evaluate import accuracy_of
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from torch import nn
from torch.nn import functional as F

BATCH_SIZE = 128
_SMOOTHING = 0.95  # of the loss and accuracy beside the progress bar


@dataclass(frozen=True)
class Schedule:
    """Linear warm-up to `peak_lr` over a fraction of the steps, then a half cosine to zero."""

    epochs: int
    peak_lr: float
    warmup: float = 0.0
    label_smoothing: float = 0.0

    def factor(self, step: int, num_steps: int) -> float:
        """The learning rate of a step, as a fraction of `peak_lr`."""
        warmup_steps = round(self.warmup * num_steps)
        if step < warmup_steps:
            return (step + 1) / (warmup_steps + 1)
        return 0.5 * (1 + math.cos(math.pi * (step - warmup_steps) / (num_steps - warmup_steps)))


@dataclass
class History:
    """What a training went through: a loss for each step, the accuracies after each epoch."""

    losses: list[float] = field(default_factory=list)
    train_accuracies: list[float] = field(default_factory=list)  # on the augmented images
    test_accuracies: list[float] = field(default_factory=list)


def train(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    dataset: Dataset,
    schedule: Schedule,
    *,
    title: str,
    generator: torch.Generator,
    console: Console,
    before_last_epoch: Callable[[], object] | None = None,
) -> History:
    """Train `model` in place and leave it in evaluation mode.

    The test accuracies are for the curves only: no choice depends on them.

    Args:
        model: the network, float or fake-quantized.
        optimizer: over the network's parameters; its learning rate is set here.
        dataset: the images.
        schedule: length and learning rate.
        title: name of the progress bar.
        generator: source of the order and the augmentation of the images.
        console: where the progress goes.
        before_last_epoch: called when the last epoch begins.
    """
    steps_per_epoch = len(dataset.train_labels) // BATCH_SIZE
    num_steps = schedule.epochs * steps_per_epoch
    history = History()
    test_images = dataset.normalize(dataset.test_images)
    with _progress(console) as progress:
        task = progress.add_task(title, total=num_steps, loss=math.nan, accuracy=math.nan)
        for epoch in range(schedule.epochs):
            if before_last_epoch and epoch == schedule.epochs - 1:
                before_last_epoch()
            model.train()
            correct = 0
            for images, labels in dataset.train_batches(BATCH_SIZE, generator):
                for group in optimizer.param_groups:
                    group["lr"] = schedule.peak_lr * schedule.factor(len(history.losses), num_steps)
                scores = model(images)
                loss = F.cross_entropy(scores, labels, label_smoothing=schedule.label_smoothing)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                hits = int((scores.argmax(1) == labels).sum())
                correct += hits
                history.losses.append(loss.item())
                _show(progress, task, loss.item(), hits / BATCH_SIZE)
            model.eval()
            mean_loss = statistics.mean(history.losses[-steps_per_epoch:])
            train_accuracy = correct / (steps_per_epoch * BATCH_SIZE)
            test_accuracy = accuracy_of(model, test_images, dataset.test_labels)
            history.train_accuracies.append(train_accuracy)
            history.test_accuracies.append(test_accuracy)
            progress.console.print(
                f"  epoch {epoch + 1} of {schedule.epochs}: loss {mean_loss:.3f}, "
                f"accuracy {train_accuracy:.2%} training, {test_accuracy:.2%} test"
            )
    return history


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("  {task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]:.3f}  accuracy {task.fields[accuracy]:.1%}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
    )


def _show(progress: Progress, task: TaskID, loss: float, accuracy: float) -> None:
    """Advance the bar by a step and its figures by a moving average."""
    shown = progress.tasks[task].fields
    for name, value in (("loss", loss), ("accuracy", accuracy)):
        if not math.isnan(shown[name]):
            shown[name] += (1 - _SMOOTHING) * (value - shown[name])
        else:
            shown[name] = value
    progress.advance(task)
