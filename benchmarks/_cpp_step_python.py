"""The other side of cpp_step.py, in Python: what benchmarks/cpp/train_step.cpp does.

Arguments: THREADS BATCH.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import qatx
import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples/python"))
from fashion_mnist_model import SmallResNet


def peak_bytes() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


def main() -> None:
    torch.set_num_threads(int(sys.argv[1]))
    torch.manual_seed(0)
    before = peak_bytes()
    images = torch.randn(int(sys.argv[2]), 1, 28, 28)
    labels = torch.randint(10, (len(images),))
    model = qatx.prepare(SmallResNet())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", qatx.CalibrationWarning)  # noise will do here
        qatx.calibrate(model, images)
    groups = qatx.parameter_groups(model, weight_decay=1e-4)
    optimizer = torch.optim.SGD(groups, lr=0.001, momentum=0.9)
    model.train()
    print("ready", flush=True)
    for line in sys.stdin:
        if line == "memory\n":
            print(peak_bytes() - before, flush=True)
            continue
        loss = F.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        print(loss.item(), flush=True)


if __name__ == "__main__":
    main()
