"""Packed layouts: exact inverses, and golden words written out by hand from the documented layout."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from quantsuite.formats import FORMATS, Format
from quantsuite.packing import pack, pack_int4, pack_values, unpack, unpack_int4, unpack_values

formats = pytest.mark.parametrize("fmt", FORMATS.values(), ids=FORMATS)
interleavings = pytest.mark.parametrize("interleaved", [False, True], ids=["row-major", "interleaved"])


@pytest.mark.parametrize(
    ("bits", "codes", "expected"),
    [
        (2, [0b01, 0b10, 0b11, 0b00], [0b00_11_10_01]),
        (3, [0b001, 0b010, 0b011, 0b100, 0b101, 0b110, 0b111, 0b000], [0b11_010_001, 0b0_101_100_0, 0b000_111_11]),
        (4, [0xA, 0x5, 0xF, 0x0], [0x5A, 0x0F]),
        (6, [0b000001, 0b100010, 0b110011, 0b010100], [0b10_000001, 0b0011_1000, 0b010100_11]),
        (8, [1, 255], [1, 255]),
    ],
)
def test_bytes_are_those_of_the_documented_layout(bits: int, codes: list[int], expected: list[int]) -> None:
    assert pack(torch.tensor(codes, dtype=torch.uint8), bits).tolist() == expected


@pytest.mark.parametrize(("interleaved", "word"), [(False, 0x7654_3210), (True, 0x7531_6420)])
def test_int4_words_are_those_of_the_documented_order(interleaved: bool, word: int) -> None:
    words = pack_int4(torch.arange(8, dtype=torch.uint8), interleaved=interleaved)
    assert words.dtype == torch.int32 and words.tolist() == [word]


def test_one_mask_takes_two_neighbours_from_an_interleaved_word() -> None:
    (word,) = pack_int4(torch.arange(8, 16, dtype=torch.uint8), interleaved=True).tolist()
    for i in range(4):
        halves = word >> 4 * i & 0x000F_000F
        assert (halves & 0xFFFF, halves >> 16) == (8 + 2 * i, 9 + 2 * i)


@formats
@given(seed=st.integers(0, 2**31), rows=st.integers(1, 5), words=st.integers(1, 9))
def test_unpacking_is_the_inverse_of_packing(fmt: Format, seed: int, rows: int, words: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(2**fmt.bits, (rows, 8 * words), generator=generator).to(torch.uint8)
    packed = pack(codes, fmt.bits)
    assert packed.numel() * 8 == codes.numel() * fmt.bits
    assert torch.equal(unpack(packed, fmt.bits), codes)


@formats
@given(seed=st.integers(0, 2**31), columns=st.integers(1, 40))
def test_unpacking_values_is_the_inverse_of_packing_them(fmt: Format, seed: int, columns: int) -> None:
    codes = torch.randint(2**fmt.bits, (3, columns), generator=torch.Generator().manual_seed(seed)).to(torch.uint8)
    values = fmt.decode(codes) if fmt.storage is None else codes.view(getattr(torch, fmt.storage))
    found = unpack_values(pack_values(values, fmt), fmt, columns)
    assert found.dtype == values.dtype and found.shape == values.shape
    assert torch.equal(found.contiguous().view(torch.uint8), values.contiguous().view(torch.uint8))


@interleavings
@given(seed=st.integers(0, 2**31), words=st.integers(1, 9))
def test_unpacking_words_is_the_inverse_of_packing_them(interleaved: bool, seed: int, words: int) -> None:
    codes = torch.randint(16, (3, 8 * words), generator=torch.Generator().manual_seed(seed)).to(torch.uint8)
    packed = pack_int4(codes, interleaved=interleaved)
    assert packed.shape == (3, words)
    assert torch.equal(unpack_int4(packed, interleaved=interleaved), codes)


@pytest.mark.parametrize(
    ("bits", "codes", "message"),
    [
        (3, [1] * 7, "7 codes of 3 bits fill no whole bytes; use a multiple of 8"),
        (6, [1] * 6, "6 codes of 6 bits fill no whole bytes; use a multiple of 4"),
        (4, [3, 16], "code 16 needs more than 4 bits; the largest is 15"),
    ],
)
def test_what_does_not_fit_is_refused(bits: int, codes: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pack(torch.tensor(codes, dtype=torch.uint8), bits)


def test_half_a_word_is_refused() -> None:
    with pytest.raises(ValueError, match="12 codes do not fill words of eight"):
        pack_int4(torch.zeros(12, dtype=torch.uint8))
