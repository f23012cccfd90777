"""`qatx::pack_codes` and `qatx::unpack_codes`."""

import pytest
import torch
from operators import ops, qparams

RANGES = [(2, -2, torch.int8), (2, 0, torch.uint8), (4, -8, torch.int8), (4, 0, torch.uint8)]


def packed_by_hand(codes: list[int], bits: int) -> list[int]:
    """The first code in the lowest bits: a row is one number, least significant byte first."""
    number = sum((code % 2**bits) << (bits * i) for i, code in enumerate(codes))
    return list(number.to_bytes(-(-len(codes) * bits // 8), "little"))


@pytest.mark.parametrize(("bits", "low", "dtype"), RANGES)
@pytest.mark.parametrize("size", [*range(18), 1001])
def test_round_trip(size, bits, low, dtype):
    codes = torch.randint(low, low + 2**bits, (3, size)).to(dtype)
    packed = ops.pack_codes(codes, bits)
    assert packed.dtype == torch.uint8
    assert packed.tolist() == [packed_by_hand(row, bits) for row in codes.tolist()]
    unpacked = ops.unpack_codes(packed, bits, size, dtype == torch.int8)
    assert unpacked.dtype == dtype
    assert torch.equal(unpacked, codes)
    assert unpacked.is_contiguous()


@pytest.mark.parametrize(("bits", "low", "dtype"), RANGES)
def test_every_pair_of_codes(bits, low, dtype):
    values = torch.arange(low, low + 2**bits)
    codes = torch.cartesian_prod(values, values).flatten().to(dtype)
    packed = ops.pack_codes(codes, bits)
    assert packed.numel() * 8 == codes.numel() * bits
    assert torch.equal(ops.unpack_codes(packed, bits, len(codes), low < 0), codes)


@pytest.mark.parametrize("shape", [(5,), (2, 3, 7), (0, 5), (4, 0)])
def test_other_shapes_and_strides(shape):
    codes = torch.randint(-8, 8, shape).to(torch.int8)
    packed = ops.pack_codes(codes, 4)
    assert packed.shape == (*shape[:-1], (shape[-1] + 1) // 2)
    assert torch.equal(ops.unpack_codes(packed, 4, shape[-1], is_signed=True), codes)
    strided = torch.stack([codes, codes], -1)[..., 0]
    assert torch.equal(ops.pack_codes(strided, 4), packed)


@pytest.mark.parametrize(("bits", "quant_min"), [(4, -8), (4, 0), (2, -2), (2, 0)])
def test_packed_weights_become_fake_quantized_ones(bits, quant_min):
    quant_max = quant_min + 2**bits - 1
    x = torch.randn(6, 35)
    scale, _ = qparams(x, 0)
    zero_point = torch.full((6,), float(max(quant_min, 0) + 1))
    codes = ops.quantize(x, scale, zero_point, quant_min, quant_max, 0)
    packed = ops.pack_codes(codes, bits)
    assert packed.nbytes == 6 * -(-35 * bits // 8)
    restored = ops.dequantize(
        ops.unpack_codes(packed, bits, 35, quant_min < 0), scale, zero_point, 0
    )
    assert torch.equal(restored, ops.fake_quantize(x, scale, zero_point, quant_min, quant_max, 0))


BYTES = torch.zeros(2, 3, dtype=torch.uint8)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: ops.pack_codes(BYTES, 3), ValueError, "bits must be 2 or 4, got 3"),
        (lambda: ops.pack_codes(BYTES.int(), 4), TypeError, "codes must be int8 or uint8, got Int"),
        (lambda: ops.pack_codes(BYTES[0, 0], 4), ValueError, "codes must have at least one dim"),
        (
            lambda: ops.pack_codes(BYTES + 16, 4),
            ValueError,
            r"codes must lie within 0\.\.15 for bits=4, got 16\.\.16",
        ),
        (
            lambda: ops.pack_codes(torch.tensor([1, -3], dtype=torch.int8), 2),
            ValueError,
            r"codes must lie within -2\.\.1 for bits=2, got -3\.\.1",
        ),
        (lambda: ops.unpack_codes(BYTES, 8, 3, False), ValueError, "bits must be 2 or 4, got 8"),
        (
            lambda: ops.unpack_codes(BYTES.char(), 4, 6, False),
            TypeError,
            "packed must be uint8, got Char",
        ),
        (
            lambda: ops.unpack_codes(BYTES[0, 0], 4, 1, False),
            ValueError,
            "packed must have at least one dimension",
        ),
        *(
            (
                lambda size=size: ops.unpack_codes(BYTES, 4, size, False),
                ValueError,
                f"size must be one whose codes fill 3 bytes, got {size}",
            )
            for size in (4, 7, -1)
        ),
    ],
)
def test_bad_arguments(call, error, message):
    with pytest.raises(error, match=message):
        call()
