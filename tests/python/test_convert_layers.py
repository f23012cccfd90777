"""Layers beside two-dimensional convolutions, with batch normalization: equal to the contract."""

import contract
import pytest
import qatx
import torch
from test_convert_operators import check_all_integer
from torch import Tensor, nn
from torch.nn import functional as F


@pytest.fixture(autouse=True)
def _restore_threads():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def with_statistics(model: nn.Module) -> nn.Module:
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.3)
    return model.eval()


class Volume(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv3d(2, 8, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm3d(8)
        self.second = nn.Conv3d(8, 8, (1, 3, 5), padding="same", groups=2)
        self.depthwise = nn.Conv3d(8, 8, 3, stride=(2, 1, 2), padding=1, groups=8)
        self.pools = nn.Sequential(
            nn.MaxPool3d(2, padding=1), nn.AvgPool3d((1, 2, 1), ceil_mode=True)
        )
        self.last = nn.Conv3d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn(self.first(x)))
        y = torch.sigmoid(self.second(y)) * y + y
        y = self.pools(torch.relu(self.depthwise(y) + self.second(y)[:, :, ::2, :, ::2]))
        return self.last(F.adaptive_avg_pool3d(y, (2, 1, 3)))


def test_convolutions_and_poolings_of_volumes():
    torch.manual_seed(0)
    check_all_integer(with_statistics(Volume()), torch.randn(3, 2, 6, 7, 8))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d])
def test_volumes_in_any_layout(layout: torch.memory_format):
    torch.manual_seed(1)
    x = torch.randn(2, 2, 4, 5, 6)
    model = qatx.prepare(nn.Sequential(nn.Conv3d(2, 5, 2), nn.ReLU()).eval())
    qatx.calibrate(model, x)
    converted, _ = qatx.convert(model, x)
    assert torch.equal(converted(x.contiguous(memory_format=layout)), contract.evaluate(model, x))


class Line(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv1d(3, 10, 5, 2, padding=2, bias=False),
            nn.BatchNorm1d(10),
            nn.ReLU6(),
            nn.Conv1d(10, 6, 3, dilation=2),
            nn.BatchNorm1d(6, affine=True),
            nn.ReLU(),
            nn.AvgPool1d(2),
            nn.Conv1d(6, 4, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


def test_batch_normalization_of_lines():
    torch.manual_seed(2)
    model = with_statistics(Line())
    prepared = qatx.prepare(model)
    assert [type(m).__name__ for m in prepared.modules()].count("ConvBn1d") == 2
    check_all_integer(model, torch.randn(3, 3, 41))


CONVS = [
    (nn.Conv1d, nn.ConvTranspose1d, nn.BatchNorm1d),
    (nn.Conv2d, nn.ConvTranspose2d, nn.BatchNorm2d),
    (nn.Conv3d, nn.ConvTranspose3d, nn.BatchNorm3d),
]


class Up(nn.Module):
    """Along one to three dimensions."""

    def __init__(self, dimensions: int, *, bn: bool, **options: int) -> None:
        super().__init__()
        conv, transposed, norm = CONVS[dimensions - 1]
        self.down = conv(3, 6, 3, 2, 1)
        self.up = transposed(6, 4, 4, 2, 1, bias=not bn, **options)
        self.bn = norm(4) if bn else nn.Identity()
        self.last = conv(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(F.relu(self.bn(self.up(self.down(x)))))


@pytest.mark.parametrize("dimensions", [1, 2, 3])
@pytest.mark.parametrize(
    "options",
    [{}, {"groups": 2}, {"dilation": 2, "output_padding": 1}],
    ids=["plain", "groups", "dilation"],
)
@pytest.mark.parametrize("bn", [False, True])
def test_transposed_convolutions(dimensions: int, options: dict[str, int], bn: bool):
    torch.manual_seed(3)
    model = with_statistics(Up(dimensions, bn=bn, **options))
    prepared = qatx.prepare(model)
    kind = f"ConvTranspose{'Bn' if bn else ''}{dimensions}d"
    assert [type(m).__name__ for m in prepared.modules()].count(kind) == 1
    _, report = check_all_integer(model, torch.randn(2, 3, *[5, 6, 7][:dimensions]))
    up = next(row for row in report.rows if row.name == "up")
    inputs = torch.Size([3, 3, 4][:dimensions]).numel()
    assert up.macs == inputs * 6 * 4 // options.get("groups", 1) * 4**dimensions


CONV_BNS = {
    "1d": (nn.Conv1d(4, 6, 3, bias=False), nn.BatchNorm1d(6), (5, 4, 9)),
    "2d": (nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6), (5, 4, 9, 8)),
    "3d": (nn.Conv3d(4, 6, 2), nn.BatchNorm3d(6), (5, 4, 3, 4, 5)),
    "transposed 1d": (nn.ConvTranspose1d(4, 6, 2, 2), nn.BatchNorm1d(6), (5, 4, 5)),
    "transposed": (nn.ConvTranspose2d(4, 6, 2, 2), nn.BatchNorm2d(6), (5, 4, 5, 3)),
    "transposed 3d": (nn.ConvTranspose3d(4, 6, 2, groups=2), nn.BatchNorm3d(6), (5, 4, 3, 2, 3)),
}


@pytest.mark.parametrize("name", CONV_BNS)
def test_folded_batch_normalization_trains_like_pytorchs(name: str):
    torch.manual_seed(4)
    conv, bn, size = CONV_BNS[name]
    qconfig = qatx.QConfig(weight=qatx.QuantSpec(bits=8, axis=0))
    twin = {
        "1d": qatx.nn.ConvBn1d,
        "2d": qatx.nn.ConvBn2d,
        "3d": qatx.nn.ConvBn3d,
        "transposed 1d": qatx.nn.ConvTransposeBn1d,
        "transposed": qatx.nn.ConvTransposeBn2d,
        "transposed 3d": qatx.nn.ConvTransposeBn3d,
    }[name].from_float(conv, bn, qconfig=qconfig, quantize_output=False)
    x = torch.randn(size)
    qatx.calibrate(twin, x)
    for module in (twin, conv, bn):
        module.train()
    y, expected = twin(x), bn(conv(x))
    torch.testing.assert_close(y, expected, rtol=0, atol=0.1)
    torch.testing.assert_close(twin.bn.running_mean, bn.running_mean, rtol=0, atol=0.02)
    y.square().mean().backward()
    assert twin.weight.grad.abs().sum() > 0
    assert twin.bn.weight.grad.abs().sum() > 0


class Words(nn.Module):
    """Embeddings as bags and one by one, and the places of words."""

    def __init__(self, mode: str) -> None:
        super().__init__()
        self.words = nn.Embedding(50, 12, padding_idx=0)
        self.places = nn.Parameter(torch.randn(30, 12))
        self.bags = nn.EmbeddingBag(50, 12, mode=mode)
        self.norm = nn.LayerNorm(12)
        self.fc, self.last = nn.Linear(12, 12), nn.Linear(12, 3)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.norm(self.words(ids) + self.places[: ids.size(1)])
        y = self.bags(ids)
        return self.last(F.relu(self.fc(x)) + self.fc(y).unsqueeze(1))


@pytest.mark.parametrize("mode", ["sum", "mean"])
def test_embeddings(mode: str):
    torch.manual_seed(5)
    ids = torch.randint(50, (3, 11))
    model = qatx.prepare(Words(mode).eval())
    qatx.calibrate(model, ids)
    converted, report = qatx.convert(model, ids)
    floats = {row.kind for row in report.rows if not row.integer}
    assert floats <= {"aten::slice", "aten::arange", "aten::view", "aten::reshape"}
    embeddings = {row.kind: row.weight_bytes for row in report.rows if "embedding" in row.kind}
    assert embeddings == {"aten::embedding": 50 * 12, "aten::embedding_bag": 50 * 12}
    for x in (ids, torch.randint(50, (1, 4)), torch.randint(50, (2, 30))):
        assert torch.equal(converted(x), contract.evaluate(model, x))
    with pytest.raises(RuntimeError, match=r"index 50 is not in 0\.\.49"):
        converted(torch.full((2, 3), 50))
    with pytest.raises(RuntimeError, match="must be int64, got Int"):
        converted(ids.int())


def test_bags_of_any_length_and_empty_ones():
    class Bags(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bags = nn.EmbeddingBag(20, 6, mode="mean")
            self.fc = nn.Linear(6, 2)

        def forward(self, ids: Tensor, offsets: Tensor) -> Tensor:
            return self.fc(self.bags(ids, offsets))

    torch.manual_seed(6)
    ids, offsets = torch.randint(20, (9,)), torch.tensor([0, 2, 2, 7])
    model = qatx.prepare(Bags().eval())
    qatx.calibrate(model, [(ids, offsets)], forward=lambda m, batch: m(*batch))
    converted, report = qatx.convert(model, (ids, offsets))
    assert all(row.integer for row in report.rows)
    assert torch.equal(converted(ids, offsets), contract.evaluate(model, ids, offsets))
    with pytest.raises(RuntimeError, match="offsets must not fall"):
        converted(ids, torch.tensor([0, 5, 3, 7]))


def test_rows_that_are_added_to_bags_and_moved_embeddings_are_right():
    class Net(nn.Module):
        def __init__(self, layer: nn.Module, move, shape: tuple[int, ...]) -> None:
            super().__init__()
            self.layer, self.move = layer, move
            self.row, self.last = nn.Parameter(torch.randn(shape)), nn.Linear(6, 2)

        def forward(self, ids: Tensor) -> Tensor:
            return self.last(self.move(self.layer(ids)) + self.row)

    torch.manual_seed(7)
    bags = Net(nn.EmbeddingBag(20, 6, mode="sum"), lambda x: x, (6,))
    moved = Net(nn.Embedding(20, 6), lambda x: x.transpose(1, 2), (6, 6))
    for net, ids in ((bags, torch.randint(20, (4, 3))), (moved, torch.randint(20, (2, 6)))):
        model = qatx.prepare(net.eval())
        qatx.calibrate(model, ids)
        converted, _ = qatx.convert(model, ids)
        torch.testing.assert_close(converted(ids), model(ids), rtol=0, atol=0.01)


def test_embeddings_with_options_that_cannot_be_quantized_stay_float():
    class Sparse(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words = nn.Embedding(20, 6, sparse=True)
            self.fc = nn.Linear(6, 2)

        def forward(self, ids: Tensor) -> Tensor:
            return self.fc(self.words(ids))

    prepared = qatx.prepare(Sparse())
    assert type(prepared.words) is nn.Embedding
    with pytest.raises(ValueError, match="must have no max_norm, sparse"):
        qatx.nn.Embedding.from_float(nn.Embedding(3, 2, max_norm=1.0))
    with pytest.raises(ValueError, match='mode must be "sum" or "mean"'):
        qatx.nn.EmbeddingBag(3, 2, mode="max")


def test_differences_layer_norm_and_linear_layers_of_volumes():
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv3d(2, 6, 1), nn.Conv3d(2, 6, 1)
            self.norm, self.fc = nn.LayerNorm(6), nn.Linear(6, 6)
            self.last = nn.Conv3d(6, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            y = self.fc(self.norm(self.a(x).permute(0, 2, 3, 4, 1))).permute(0, 4, 1, 2, 3)
            return self.last(y - self.b(x))

    torch.manual_seed(7)
    check_all_integer(Net(), torch.randn(2, 2, 3, 4, 5))
