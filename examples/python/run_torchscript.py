"""Evaluate a TorchScript classifier that qatx converted; Python's twin of run_torchscript.cpp.

Knows nothing of the training: the file and the test set are all that it reads.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from pickle import UnpicklingError

import qatx
import torch
from fashion_mnist_evaluate import agreement, predict


def main() -> None:
    parser = argparse.ArgumentParser(description="Evaluate a TorchScript classifier.")
    parser.add_argument("model", type=Path, help="TorchScript file")
    parser.add_argument(
        "test_set",
        type=Path,
        help='file of torch.save({"images": float32 [N, C, H, W], "labels": int64 [N]})',
    )
    parser.add_argument("--predictions", type=Path, help="write the predicted classes, one a line")
    parser.add_argument("--threads", type=int, help="number of threads (default: PyTorch's)")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)

    try:
        model = qatx.load(args.model)
        test_set = torch.load(args.test_set)
    except (EOFError, OSError, RuntimeError, UnpicklingError) as error:
        parser.exit(1, f"error: {error}\n")
    classes = predict(model, test_set["images"])
    print(f"accuracy {agreement(classes, test_set['labels']):.2%}")
    if args.predictions:
        args.predictions.write_text("".join(f"{value}\n" for value in classes.tolist()))


if __name__ == "__main__":
    main()
