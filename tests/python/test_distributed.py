"""Training in two processes."""

from pathlib import Path

import pytest
import torch
from qatx import QuantSpec
from qatx.nn import PACT, FakeQuantize, MovingAverage
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel

ACTIVATION = QuantSpec(bits=4, signed=False, symmetric=False)
WEIGHT = QuantSpec(bits=4, axis=0)
STEPS = 50
WORLD_SIZE = 2


class Network(nn.Module):
    """A layer with every kind of quantizer that training moves."""

    def __init__(self) -> None:
        super().__init__()
        self.x = MovingAverage(ACTIVATION, role="activation")
        self.weight = nn.Parameter(torch.randn(6, 5))
        self.weight_quantizer = FakeQuantize(WEIGHT, role="weight", scale_shape=(6,))
        self.y = FakeQuantize(ACTIVATION, role="activation")
        self.z = PACT(ACTIVATION, role="activation")

    def forward(self, x: Tensor) -> Tensor:
        y = self.y(self.x(x) @ self.weight_quantizer(self.weight).T)
        return self.z(y.relu())


def quantizers(model: nn.Module) -> list[FakeQuantize]:
    return [m for m in model.modules() if isinstance(m, FakeQuantize)]


def train(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=WORLD_SIZE
    )
    model = Network()
    for module in quantizers(model):
        module.begin_calibration()
    model(torch.randn(20, 5))
    for module in quantizers(model):
        module.finish_calibration()
    parallel = DistributedDataParallel(model)
    optimizer = torch.optim.SGD(parallel.parameters(), lr=0.01, momentum=0.9)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    data = torch.Generator().manual_seed(100 + rank)  # different on each rank
    gradients = []
    for _ in range(STEPS):
        x = torch.randn(16, 5, generator=data) * (rank + 1)
        optimizer.zero_grad()
        parallel(x).square().sum().backward()
        gradients.append(model.y.scale.grad.item())
        optimizer.step()
    parallel(torch.zeros(1, 5))  # buffers are those of rank 0 from the next forward on
    state = {"before": before, "after": model.state_dict(), "gradients": gradients, "x": x}
    torch.save(state, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_scales_are_the_same_on_every_rank(tmp_path: Path):
    torch.multiprocessing.spawn(train, (str(tmp_path),), nprocs=WORLD_SIZE)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(WORLD_SIZE))
    assert not torch.equal(first["x"], second["x"])
    assert first["gradients"] == second["gradients"]
    for name, value in first["after"].items():
        torch.testing.assert_close(second["after"][name], value, rtol=0, atol=0, msg=name)
    learned = ("weight_quantizer.scale", "y.scale", "y.zero_point", "z.alpha", "x.scale")
    for name in learned:
        assert not torch.equal(first["after"][name], first["before"][name]), name


@pytest.mark.parametrize("kind", [FakeQuantize, PACT, MovingAverage])
def test_every_buffer_can_be_broadcast(kind):
    """DDP sends parameters and buffers around: all are plain dense tensors from construction."""
    module = kind(ACTIVATION, role="activation")
    for value in [*module.parameters(), *module.buffers()]:
        assert value.layout == torch.strided
        assert not value.is_meta
