"""Load what train_qat wrote into Python: the file predicts there what it does in C++."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import qatx
import torch


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path, help="what train_qat was given as --out")
    folder: Path = parser.parse_args().folder
    model = qatx.load(folder / "qat_int8.pt")
    images, labels, expected = torch.load(folder / "predictions.pt")
    with torch.inference_mode():
        batches = images.split(250)
        classes = torch.cat([model(batch).argmax(1) for batch in batches])
    accuracy = (classes == labels).double().mean().item()
    same = int((classes == expected).sum())
    print(
        f"In Python: accuracy {accuracy:.2%}; the same class as in C++ for {same:,} of "
        f"{len(classes):,} images"
    )
    return 0 if same == len(classes) else 1


if __name__ == "__main__":
    sys.exit(main())
