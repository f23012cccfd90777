"""Train a small residual network, quantize it to 8 bits, and run it from Python and from C++.

Float training, post-training quantization (PTQ), quantization-aware training (QAT), conversion to
integers, and the comparison of all of them in accuracy, file size and speed.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import qatx
import torch
from fashion_mnist_data import DEBIAN_FOLDER, DIGITS, FASHION_MNIST, DataError, Dataset, load
from fashion_mnist_evaluate import accuracy_of, agreement, predict, seconds_per_call
from fashion_mnist_model import SmallResNet
from fashion_mnist_report import (
    Row,
    check_claims,
    checks_table,
    plot_training,
    plot_weights,
    results_table,
    write_summary,
)
from fashion_mnist_train import BATCH_SIZE, Schedule, train
from rich.console import Console
from torch import Tensor, nn

HERE = Path(__file__).resolve().parent
CPP_PROGRAM = HERE.parents[1] / "build" / "cmake" / "bin" / "run_torchscript"

FLOAT_EPOCHS, FLOAT_LR, FLOAT_WARMUP = 6, 0.15, 0.25
QAT_EPOCHS, QAT_LR = 2, 0.005
DIGITS_PASSES = 6  # times as many epochs for the few digits
LABEL_SMOOTHING = 0.05
WEIGHT_DECAY = 5e-4
NUM_CALIBRATION_IMAGES = 1000
QUICK_SUBSET = (6000, 1000)  # training and test images
SHOWN_LAYER = "stages.1.body.3"


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse_arguments(arguments)
    # TorchScript is deprecated upstream, and what this example is about.
    warnings.filterwarnings("ignore", "`torch.jit", DeprecationWarning)
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    try:
        dataset = load(options.data)
        if options.quick:
            dataset = dataset.subset(*QUICK_SUBSET)
        passes = DIGITS_PASSES if dataset.name == DIGITS else 1
        options.epochs = options.epochs or passes * (1 if options.quick else FLOAT_EPOCHS)
        options.qat_epochs = options.qat_epochs or passes * (1 if options.quick else QAT_EPOCHS)
        return run(options, dataset, Console(soft_wrap=True))
    except (DataError, subprocess.CalledProcessError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, help="folder with the four files of Fashion-MNIST")
    parser.add_argument("--out", type=Path, default=Path("build/demo"), help="for the results")
    parser.add_argument("--quick", action="store_true", help="a tenth of the data, one epoch each")
    parser.add_argument("--epochs", type=positive, help=f"float training (default {FLOAT_EPOCHS})")
    parser.add_argument("--qat-epochs", type=positive, help=f"QAT (default {QAT_EPOCHS})")
    parser.add_argument("--threads", type=positive, default=torch.get_num_threads())
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cpp-program", type=Path, default=CPP_PROGRAM, help="run_torchscript")
    options = parser.parse_args(arguments)
    options.cpp_program = options.cpp_program.resolve()
    if not options.cpp_program.is_file():
        parser.error(f"{options.cpp_program} does not exist: `make build` builds it")
    return options


def positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {value}")
    return value


def run(options: argparse.Namespace, dataset: Dataset, console: Console) -> int:
    """The demo, step by step; returns the exit status."""
    out: Path = options.out
    out.mkdir(parents=True, exist_ok=True)
    files = {name: out / f"{name}.pt" for name in ("fp32", "ptq_int8", "qat_int8", "test_set")}
    test_images, test_labels = dataset.normalize(dataset.test_images), dataset.test_labels
    torch.save({"images": test_images, "labels": test_labels}, files["test_set"])
    example = test_images[:1]
    generator = torch.Generator().manual_seed(options.seed)
    fit = partial(train, dataset=dataset, generator=generator, console=console)
    clock = Clock(console)
    describe_data(dataset, options, console)

    clock.start("Float training")
    model = SmallResNet()
    # The fastest layout for training on a CPU; torch's stubs lack the argument.
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    float_history = fit(
        model,
        torch.optim.SGD(
            model.parameters(), lr=0.0, momentum=0.9, nesterov=True, weight_decay=WEIGHT_DECAY
        ),
        schedule=Schedule(options.epochs, FLOAT_LR, FLOAT_WARMUP, LABEL_SMOOTHING),
        title="FP32",
    )
    torch.jit.save(torch.jit.freeze(torch.jit.trace(model, example)), files["fp32"])

    clock.start("Post-training quantization")
    prepared = qatx.prepare(model, qatx.QConfig())
    calibration_images = dataset.normalize(dataset.train_images[:NUM_CALIBRATION_IMAGES])
    qatx.calibrate(prepared, calibration_images.split(100))
    console.print(
        f"  calibrated with {len(calibration_images):,} training images; fake-quantized accuracy "
        f"{accuracy_of(prepared, test_images, test_labels):.2%} on test images"
    )
    converted, _ = qatx.convert(prepared, example)
    qatx.save(converted, files["ptq_int8"])

    clock.start("Quantization-aware training")
    qat_history = fit(
        prepared,
        torch.optim.SGD(
            qatx.parameter_groups(prepared, weight_decay=WEIGHT_DECAY), lr=0.0, momentum=0.9
        ),
        schedule=Schedule(options.qat_epochs, QAT_LR, label_smoothing=LABEL_SMOOTHING),
        title="QAT",
        before_last_epoch=lambda: qatx.freeze_batch_norm(prepared),
    )
    qat_classes = predict(prepared, test_images)

    clock.start("Conversion to integers")
    converted, report = qatx.convert(prepared, example)
    qatx.save(converted, files["qat_int8"])
    print(report)

    clock.start("The file in a fresh Python process")
    python_program = [sys.executable, HERE / "run_torchscript.py"]
    python_classes = run_program(python_program, files["qat_int8"], options, console)

    clock.start("The file in C++, without Python")
    cpp_json = out / "cpp.json"
    cpp_program = [options.cpp_program, "--json", cpp_json]
    cpp_classes = run_program(cpp_program, files["qat_int8"], options, console)

    clock.start("Comparison")
    rows = compare(files, test_images, test_labels, json.loads(cpp_json.read_text()))
    agreements = {
        "converted_with_qat_model": agreement(python_classes, qat_classes),
        "cpp_with_python": agreement(cpp_classes, python_classes),
    }
    checks = check_claims(
        rows, agreements, with_accuracy=dataset.name == FASHION_MNIST and not options.quick
    )
    console.print(results_table(rows))
    console.print(checks_table(checks))
    plot_training(float_history, qat_history, out / "training_curves.png")
    weights = layer_weights(prepared, SHOWN_LAYER, example)
    plot_weights(SHOWN_LAYER, *weights, out / "weight_histograms.png")
    clock.stop()
    write_summary(
        out / "summary.json",
        rows,
        checks,
        {
            "settings": settings(dataset, options),
            "agreement": agreements,
            "seconds": clock.seconds,
        },
    )
    console.print(
        f"Done in {sum(clock.seconds.values()):.0f} seconds. In {out}: summary.json, "
        "training_curves.png, weight_histograms.png and the models."
    )
    return 0 if agreements["cpp_with_python"] == 1.0 else 1


class Clock:
    """Announces the steps and notes how long each took."""

    def __init__(self, console: Console) -> None:
        self.seconds: dict[str, float] = {}
        self._console = console
        self._step = ""
        self._since = 0.0

    def start(self, step: str) -> None:
        """Begin a step, which ends the one before."""
        self.stop()
        self._console.print(f"\n[bold]{step}[/]")
        self._step, self._since = step, time.perf_counter()

    def stop(self) -> None:
        """End the current step, if there is one."""
        if self._step:
            self.seconds[self._step] = time.perf_counter() - self._since
        self._step = ""


def describe_data(dataset: Dataset, options: argparse.Namespace, console: Console) -> None:
    if dataset.name == DIGITS:
        console.print(
            f"No --data, and no {DEBIAN_FOLDER} (Debian's dataset-fashion-mnist): "
            "scikit-learn's digits take the place of Fashion-MNIST."
        )
    console.print(
        f"{dataset.name}: {len(dataset.train_labels):,} training and "
        f"{len(dataset.test_labels):,} test images; {options.threads} threads"
    )


def settings(dataset: Dataset, options: argparse.Namespace) -> dict[str, Any]:
    return {
        "dataset": dataset.name,
        "train_images": len(dataset.train_labels),
        "test_images": len(dataset.test_labels),
        "calibration_images": NUM_CALIBRATION_IMAGES,
        "batch_size": BATCH_SIZE,
        "learning_rate": FLOAT_LR,
        "qat_learning_rate": QAT_LR,
        "weight_decay": WEIGHT_DECAY,
        "label_smoothing": LABEL_SMOOTHING,
        **{name: getattr(options, name) for name in ("quick", "epochs", "qat_epochs", "seed")},
    }


def compare(
    files: Mapping[str, Path], images: Tensor, labels: Tensor, cpp: Mapping[str, float]
) -> list[Row]:
    """Accuracy, size and speed of each file; `cpp` is what the C++ program measured of the last."""
    models = {
        "fp32": torch.jit.optimize_for_inference(torch.jit.load(files["fp32"])),
        "ptq_int8": qatx.load(files["ptq_int8"]),
        "qat_int8": qatx.load(files["qat_int8"]),
    }
    one = seconds_per_call(models, images[:1])
    many = seconds_per_call(models, images[:64])
    rows = [
        Row(
            name.replace("_", " ").upper(),
            accuracy_of(model, images, labels),
            files[name].stat().st_size,
            1e3 * one[name],
            64 / many[name],
        )
        for name, model in models.items()
    ]
    return [
        *rows,
        Row(
            "QAT INT8, C++",
            cpp["accuracy"],
            files["qat_int8"].stat().st_size,
            cpp["ms_per_image_batch_1"],
            cpp["images_per_second_batch_64"],
        ),
    ]


def run_program(
    command: Sequence[object], model: Path, options: argparse.Namespace, console: Console
) -> Tensor:
    """The classes that one of the two run_torchscript programs predicts with a model file."""
    predictions = options.out / "predictions.txt"
    arguments = [model, options.out / "test_set.pt", "--predictions", predictions]
    words = [*map(str, [*command, *arguments]), "--threads", str(options.threads)]
    console.print("  $ " + shlex.join(words), highlight=False, markup=False, soft_wrap=True)
    subprocess.run(words, check=True)
    return torch.tensor([int(line) for line in predictions.read_text().split()])


def layer_weights(model: nn.Module, name: str, example: Tensor) -> tuple[Tensor, Tensor]:
    """A layer's weight, batch normalization folded into it, before and as the integers after."""
    quantizer = model.get_submodule(name).get_submodule("weight_fake_quantize")
    seen: list[Tensor] = []
    handle = quantizer.register_forward_hook(
        lambda _, inputs, output: seen.extend((*inputs, output))
    )
    with torch.no_grad():
        model(example)
        handle.remove()
        before, after = seen
        scale = torch.ops.qatx.learned_scale(quantizer.scale)
        return before, (after / scale.reshape(-1, 1, 1, 1)).round()


if __name__ == "__main__":
    sys.exit(main())
