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


def causal(q: Tensor, k: Tensor, v: Tensor, _: Tensor | None) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)


def causal_by_hand(q: Tensor, k: Tensor, v: Tensor, _: Tensor | None) -> Tensor:
    allowed = torch.ones((q.size(2), k.size(2)), dtype=torch.bool).tril()
    scores = (q @ k.transpose(-2, -1) * 0.3).masked_fill(~allowed, float("-inf"))
    return scores.softmax(-1) @ v


def causal_with_a_number(q: Tensor, k: Tensor, v: Tensor, _: Tensor | None) -> Tensor:
    mask = torch.tril(torch.ones((q.size(-2), q.size(-2)))) == 0
    scores = torch.matmul(q, k.transpose(-2, -1)) / 3
    scores = torch.where(mask, torch.finfo(torch.float32).min, scores)
    return torch.softmax(scores, -1) @ v


@pytest.mark.parametrize("attend", [causal, causal_by_hand, causal_with_a_number])
def test_causal_attention_converts_entirely(attend):
    torch.manual_seed(3)
    model = perturbed(Encoder(attend, pre_norm=True))
    x = torch.randn(3, 11, 5)
    converted, report = check_all_integer(model, x)
    assert report.integer_share_of_macs == 1.0
    y = converted(x)
    x[:, 6:] += 1
    assert torch.equal(converted(x)[:, :6], y[:, :6])
    assert not torch.equal(converted(x)[:, 6:], y[:, 6:])
    assert converted(torch.randn(1, 30, 5)).shape == (1, 30, 4)  # a mask for every length


def by_hand_with_bool(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    scores = torch.where(mask, q @ k.transpose(-2, -1) * 0.4, -1e4)
    return scores.softmax(-1) @ v


@pytest.mark.parametrize("attend", [fused, by_hand_with_bool])
@pytest.mark.parametrize(
    "shape", [(3, 1, 1, 19), (3, HEADS, 19, 19), (1, HEADS, 1, 19), (HEADS, 19, 19), (19, 19)]
)
def test_bool_masks_are_applied_in_the_program(attend, shape: tuple[int, ...]):
    torch.manual_seed(4)
    mask = torch.rand(shape) < 0.7
    mask[..., 0] = True  # every query meets a key
    check_masked(attend, mask)


@pytest.mark.parametrize("attend", [fused, by_hand])
@pytest.mark.parametrize("shape", [(3, HEADS, 19, 19), (1, HEADS, 1, 19), (HEADS, 19, 19)])
def test_masks_of_each_head_are_added_in_the_program(attend, shape: tuple[int, ...]):
    torch.manual_seed(5)
    check_masked(attend, torch.randn(shape))


def check_masked(attend, mask: Tensor) -> None:
    x = torch.randn(3, 19, 5)
    model = qatx.prepare(perturbed(Masked(attend, pre_norm=False)).eval())
    qatx.calibrate(model, [(x, mask)], forward=lambda m, batch: m(*batch))
    converted, report = qatx.convert(model, (x, mask))
    assert [row.kind for row in report.rows if not row.integer] == []
    assert str(converted.graph).count("qatx::run_program") == 1
    assert torch.equal(converted(x, mask), contract.evaluate(model, x, mask))


def test_a_mask_that_is_also_data():
    """Data lie in memory with channels last, masks do not."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.last = nn.Conv2d(HEADS, HEADS, 1), nn.Linear(7, 2)

        def forward(self, x: Tensor) -> Tensor:
            y = self.conv(x)
            scores = y @ y.transpose(-2, -1) + x
            return self.last(scores.softmax(-1))

    torch.manual_seed(6)
    x = torch.randn(2, HEADS, 7, 7)
    model = qatx.prepare(Net().eval())
    qatx.calibrate(model, x)
    converted, _ = qatx.convert(model, x)
    torch.testing.assert_close(converted(x), model(x), rtol=0, atol=0.01)


ENCODERS = {
    "post norm": {"norm_first": False, "batch_first": True},
    "pre norm": {"norm_first": True, "batch_first": True, "activation": "gelu"},
    "time first": {"norm_first": False, "batch_first": False},
}


@pytest.mark.parametrize("name", ENCODERS)
def test_encoders_of_torch_convert_entirely(name: str):
    torch.manual_seed(7)
    layer = nn.TransformerEncoderLayer(12, 3, 20, **ENCODERS[name])
    encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    model = perturbed(nn.Sequential(nn.Linear(5, 12), encoder, nn.Linear(12, 4))).eval()
    x = torch.randn(3, 9, 5)
    prepared = qatx.prepare(model)
    qatx.calibrate(prepared, x)
    with torch.no_grad():
        torch.testing.assert_close(prepared(x), model(x), rtol=0, atol=0.1)
    converted, report = qatx.convert(prepared, x)
    assert [row.kind for row in report.rows if not row.integer] == []
    assert str(converted.graph).count("qatx::run_program") == 1
    assert torch.equal(converted(x), contract.evaluate(prepared, x))


class SelfAttention(nn.Module):
    """`nn.MultiheadAttention` as models call it."""

    def __init__(self, **options: object) -> None:
        super().__init__()
        self.embed = nn.Linear(5, 12)
        self.attention = nn.MultiheadAttention(12, 3, batch_first=True, **options)
        self.norm, self.last = nn.LayerNorm(12), nn.Linear(12, 4)

    def forward(self, x: Tensor, padding: Tensor) -> Tensor:
        x = self.embed(x)
        y, _ = self.attention(x, x, x, key_padding_mask=padding)
        return self.last(self.norm(x + y))


@pytest.mark.parametrize("options", [{}, {"bias": False}, {"kdim": 12, "vdim": 12}], ids=str)
def test_multihead_attention_of_torch(options: dict[str, object]):
    torch.manual_seed(8)
    model = perturbed(SelfAttention(**options)).eval()
    x, padding = torch.randn(3, 9, 5), torch.zeros(3, 9, dtype=torch.bool)
    padding[1, 5:] = padding[2, 2:] = True
    prepared = qatx.prepare(model)
    qatx.calibrate(prepared, [(x, padding)], forward=lambda m, batch: m(*batch))
    with torch.no_grad():
        torch.testing.assert_close(prepared(x, padding), model(x, padding), rtol=0, atol=0.1)
    converted, report = qatx.convert(prepared, (x, padding))
    assert report.integer_share_of_macs == 1.0
    assert str(converted.graph).count("qatx::run_program") == 1
    assert torch.equal(converted(x, padding), contract.evaluate(prepared, x, padding))


def test_attention_with_a_bool_mask_is_close_to_that_of_pytorch():
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
