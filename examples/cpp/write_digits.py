"""Write scikit-learn's digits in the format of Fashion-MNIST, for train_qat --data."""

from __future__ import annotations

import argparse
import gzip
import struct
import sys
from pathlib import Path

from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "python"))
from fashion_mnist_data import load_digits


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    digits = load_digits()
    parts = {
        "train": (digits.train_images, digits.train_labels),
        "t10k": (digits.test_images, digits.test_labels),
    }
    for name, (images, labels) in parts.items():
        write_idx(folder / f"{name}-images-idx3-ubyte.gz", images.squeeze(1))
        write_idx(folder / f"{name}-labels-idx1-ubyte.gz", labels)
    return 0


def write_idx(path: Path, values: Tensor) -> None:
    """Write a gzipped IDX file of unsigned bytes."""
    header = struct.pack(f">4B{values.dim()}I", 0, 0, 0x08, values.dim(), *values.shape)
    with gzip.open(path, "wb") as file:
        file.write(header + values.byte().numpy().tobytes())


if __name__ == "__main__":
    sys.exit(main())
