"""Transformers in integers: equal to the contract."""

import math

import contract
import pytest
import qatx
import torch
from test_convert_operators import check_all_integer, convert_exactly
from torch import Tensor, nn
from torch.nn import functional as F

DIMENSION, HEADS = 24, 3


@pytest.fixture(autouse=True)
def _restore_threads():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def fused(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, mask)


def by_hand(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    scores = q @ k.transpose(2, 3) / math.sqrt(DIMENSION // HEADS)
    if mask is not None:
        scores = scores + mask
    return F.dropout(scores.softmax(dim=-1), 0.1, training=False) @ v


def in_batches(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    assert mask is None
    q, k, v = (x.flatten(0, 1) for x in (q * 0.3, k, v))
    y = torch.bmm(torch.softmax(torch.bmm(q, k.transpose(1, 2)), 2), v)
    return y.unflatten(0, (-1, HEADS))


class Block(nn.Module):
    """A layer of a transformer; `pre_norm` says where it normalizes."""

    def __init__(self, attend, *, pre_norm: bool) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(DIMENSION), nn.LayerNorm(DIMENSION, eps=1e-12)
        self.qkv = nn.Linear(DIMENSION, 3 * DIMENSION)
        self.project = nn.Linear(DIMENSION, DIMENSION)
        self.up = nn.Linear(DIMENSION, 2 * DIMENSION)
        self.down = nn.Linear(2 * DIMENSION, DIMENSION)
        self.attend = attend
        self.pre_norm = pre_norm

    def attention(self, x: Tensor, mask: Tensor | None) -> Tensor:
        qkv = self.qkv(x).unflatten(2, (3, HEADS, DIMENSION // HEADS)).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        return self.project(self.attend(q, k, v, mask).transpose(1, 2).flatten(2))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        if self.pre_norm:
            x = self.attention(self.norm1(x), mask) + x
            return self.down(F.gelu(self.up(self.norm2(x)))) + x
        x = self.norm1(self.attention(x, mask) + x)
        return self.norm2(self.down(F.gelu(self.up(x))) + x)


class Encoder(nn.Module):
    def __init__(self, attend, *, pre_norm: bool) -> None:
        super().__init__()
        self.embed = nn.Linear(5, DIMENSION)
        self.blocks = nn.ModuleList(Block(attend, pre_norm=pre_norm) for _ in range(2))
        self.head = nn.Linear(DIMENSION, 4)

    def encode(self, x: Tensor, mask: Tensor | None) -> Tensor:
        y = self.embed(x)
        for block in self.blocks:
            y = block(y, mask)
        return self.head(y)

    def forward(self, x: Tensor) -> Tensor:
        return self.encode(x, None)


class Masked(Encoder):
    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return self.encode(x, mask)


def perturbed(model: nn.Module) -> nn.Module:
    for module in model.modules():
        if isinstance(module, nn.LayerNorm):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.3)
    return model


@pytest.mark.parametrize("pre_norm", [False, True])
@pytest.mark.parametrize("attend", [fused, by_hand, in_batches])
def test_encoders_convert_entirely(attend, pre_norm: bool):
    torch.manual_seed(0)
    model = perturbed(Encoder(attend, pre_norm=pre_norm))
    _, report = check_all_integer(model, torch.randn(3, 19, 5))
    assert report.integer_share_of_macs == 1.0


@pytest.mark.parametrize("attend", [fused, by_hand])
@pytest.mark.parametrize("shape", [(3, 1, 1, 19), (3, 1, 19, 19), (1, 1, 19, 19), (19, 19), (19,)])
def test_masks_are_added_in_the_program(attend, shape: tuple[int, ...]):
    torch.manual_seed(1)
    mask = torch.where(torch.rand(shape) < 0.3, -10_000.0, torch.randn(shape))
    x = torch.randn(3, 19, 5)
    model = qatx.prepare(perturbed(Masked(attend, pre_norm=False)).eval())
    qatx.calibrate(model, [(x, mask)], forward=lambda m, batch: m(*batch))
    converted, report = qatx.convert(model, (x, mask))
    assert [row.kind for row in report.rows if not row.integer] == []
    assert torch.equal(converted(x, mask), contract.evaluate(model, x, mask))


def test_the_length_of_a_sequence_may_change():
    torch.manual_seed(2)
    model = perturbed(Encoder(fused, pre_norm=True))
    prepared = qatx.prepare(model.eval())
    qatx.calibrate(prepared, torch.randn(8, 30, 5))
    converted, _ = qatx.convert(prepared, torch.randn(1, 12, 5))
    for batch, length in ((1, 1), (2, 7), (1, 64), (5, 33)):
        x = torch.randn(batch, length, 5)
        assert torch.equal(converted(x), contract.evaluate(prepared, x))


def test_causal_and_boolean_masks_are_right():
    class Causal(Encoder):
        def __init__(self) -> None:
            super().__init__(
                lambda q, k, v, _: F.scaled_dot_product_attention(q, k, v, is_causal=True),
                pre_norm=True,
            )

    torch.manual_seed(3)
    x = torch.randn(2, 11, 5)
    model = qatx.prepare(Causal().eval())
    qatx.calibrate(model, x)
    converted, report = qatx.convert(model, x)
    assert report.integer_share_of_macs == 1.0
    y = converted(x)
    x[:, 6:] += 1
    assert torch.equal(converted(x)[:, :6], y[:, :6])
    assert not torch.equal(converted(x)[:, 6:], y[:, 6:])

    allowed = torch.rand(11, 11) < 0.5
    allowed[:, 0] = True
    q, k, v = torch.randn(3, 2, HEADS, 11, 8)
    attention = qatx.nn.ScaledDotProductAttention()
    qatx.calibrate(attention, [(q, k, v, allowed)], forward=lambda m, batch: m(*batch))
    with torch.no_grad():
        got = attention(q, k, v, allowed)
        expected = F.scaled_dot_product_attention(q, k, v, allowed)
    torch.testing.assert_close(got, expected, rtol=0, atol=0.03)


def test_attention_is_close_to_that_of_pytorch_and_trains():
    torch.manual_seed(4)
    q, k, v = torch.randn(3, 2, HEADS, 9, 8).requires_grad_()
    mask = torch.randn(9, 9)
    attention = qatx.nn.ScaledDotProductAttention()
    every = ({}, {"attn_mask": mask}, {"is_causal": True}, {"scale": 0.7})
    qatx.calibrate(attention, every, forward=lambda m, options: m(q, k, v, **options))
    for options in every:
        y = attention(q, k, v, **options)
        expected = F.scaled_dot_product_attention(q, k, v, **options)
        torch.testing.assert_close(y, expected, rtol=0, atol=0.03)
    y.square().sum().backward()
    assert attention.probability_fake_quantize.scale.grad is not None


def test_keys_and_values_are_quantized_symmetrically():
    prepared = qatx.prepare(Encoder(fused, pre_norm=False))
    spec = prepared.get_submodule("blocks.0.qkv").output_fake_quantize.spec
    assert spec.symmetric
    assert spec.signed
    assert not prepared.get_submodule("embed").output_fake_quantize.spec.symmetric


class ConvNeXt(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 2, 2)
        self.depthwise = nn.Conv2d(12, 12, 3, padding=1, groups=12)
        self.norm = nn.LayerNorm(12)
        self.up, self.down = nn.Linear(12, 20), nn.Linear(20, 12)
        self.head = nn.Conv2d(12, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        y = self.down(F.gelu(self.up(y))).permute(0, 3, 1, 2)
        return self.head(y + x)


def test_layer_norm_over_the_channels_of_an_image():
    torch.manual_seed(5)
    check_all_integer(perturbed(ConvNeXt()), torch.randn(3, 3, 10, 14))


def test_layer_norm_without_parameters_and_of_codes():
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(6, 20), nn.Linear(20, 5)

        def forward(self, x: Tensor) -> Tensor:
            y = self.first(x)
            return self.last(F.layer_norm(y, (20,)) * torch.sigmoid(y))

    torch.manual_seed(6)
    check_all_integer(Net(), torch.randn(7, 6))


def test_asymmetric_second_factors_stay_float_and_say_why():
    class Product(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            spec = qatx.QuantSpec(bits=8, signed=False, symmetric=False)
            self.a = qatx.nn.FakeQuantize(spec, role="activation")
            self.b = qatx.nn.FakeQuantize(spec, role="activation")

        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return self.a(x) @ self.b(y)

    x, y = torch.randn(2, 3, 4), torch.randn(2, 4, 5)
    model = Product()
    qatx.calibrate(model, [(x, y)], forward=lambda m, batch: m(*batch))
    _, report = qatx.convert(model, (x, y))
    (row,) = [row for row in report.rows if row.kind == "aten::matmul"]
    assert row.reason == "the second input is not quantized symmetrically"


class Moved(nn.Module):
    """Products whose rows and columns change places before they are normalized or masked."""

    def __init__(self, function) -> None:
        super().__init__()
        self.a, self.b, self.last = nn.Linear(6, 8), nn.Linear(6, 8), nn.Linear(5, 3)
        self.mask = nn.Parameter(torch.randn(5, 5))
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        scores = torch.bmm(self.a(x), self.b(x).transpose(1, 2)).transpose(1, 2)
        return self.last(self.function(scores, self.mask))


@pytest.mark.parametrize(
    "function",
    [
        lambda scores, _: torch.softmax(scores, -1),
        lambda scores, mask: torch.softmax(scores * 0.5 + mask, -1),
        lambda scores, _: F.layer_norm(scores, (5,)),
    ],
    ids=["softmax", "mask", "layer_norm"],
)
def test_moved_scores(function):
    torch.manual_seed(8)
    x = 3 * torch.randn(2, 5, 6)
    model = qatx.prepare(Moved(function).eval())
    qatx.calibrate(model, x)
    converted, _ = qatx.convert(model, x)
    torch.testing.assert_close(converted(x), model(x), rtol=0, atol=0.01)


def test_macs_of_attention_are_counted():
    torch.manual_seed(7)
    x = torch.randn(1, 10, 5)
    _, report = convert_exactly(Encoder(fused, pre_norm=False), x)
    macs = {row.kind: 0 for row in report.rows}
    for row in report.rows:
        macs[row.kind] += row.macs
    assert macs["aten::matmul"] == 2 * 2 * 10 * 10 * DIMENSION
