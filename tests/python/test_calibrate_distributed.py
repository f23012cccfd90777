"""Calibration in two processes gives what one process with all data gives."""

from pathlib import Path

import qatx
import torch
from models import Residual
from torch import distributed as dist
from torch import multiprocessing, nn

WORLD_SIZE = 2


def prepared() -> nn.Module:
    torch.manual_seed(5)
    return qatx.prepare(Residual())


def data() -> list[torch.Tensor]:
    torch.manual_seed(6)
    return [torch.randn(4, 3, 8, 8) * (i + 1) for i in range(4)]


def work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=WORLD_SIZE
    )
    result = {}
    for method in ("min_max", "moving_average", "kl"):
        model = prepared()
        report = qatx.calibrate(model, data()[rank::WORLD_SIZE], method=method)
        result[method] = model.state_dict(), report.samples
    model = prepared()
    try:
        qatx.calibrate(model, data()[:1] if rank == 0 else [])
    except (RuntimeError, ValueError) as error:
        result["failure"] = str(error)
    torch.save(result, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_ranks_agree_with_one_process(tmp_path: Path):
    multiprocessing.spawn(work, (str(tmp_path),), nprocs=WORLD_SIZE)
    results = [torch.load(tmp_path / f"{rank}.pt") for rank in range(WORLD_SIZE)]
    for method in ("min_max", "moving_average", "kl"):
        model = prepared()
        qatx.calibrate(model, data(), method=method)
        expected = model.state_dict()
        for result in results:
            state, samples = result[method]
            torch.testing.assert_close(state, expected, rtol=0, atol=0)
            assert samples == 16
    assert results[0]["failure"] == "qatx.calibrate: 1 other ranks have failed"
    assert "data is empty" in results[1]["failure"]
