"""Rounding to a number format, against oracles that the project did not write."""

import ml_dtypes
import numpy as np
import pytest
import torch

from quantsuite import reference
from quantsuite.formats import (
    FORMATS,
    FP4_E2M1,
    FP6_E2M3,
    FP6_E3M2,
    FP8_E4M3,
    FP8_E5M2,
    INT2,
    INT4,
    INT8,
    NF4,
    FloatFormat,
    Format,
)
from quantsuite.quantize import storage_dtype

ORACLES = {
    FP8_E4M3: ml_dtypes.float8_e4m3fn,
    FP8_E5M2: ml_dtypes.float8_e5m2,
    FP6_E2M3: ml_dtypes.float6_e2m3fn,
    FP6_E3M2: ml_dtypes.float6_e3m2fn,
    FP4_E2M1: ml_dtypes.float4_e2m1fn,
}

formats = pytest.mark.parametrize("fmt", FORMATS.values(), ids=FORMATS)
floats = pytest.mark.parametrize("fmt", ORACLES, ids=lambda fmt: fmt.name)
torch_floats = pytest.mark.parametrize("fmt", [FP8_E4M3, FP8_E5M2], ids=lambda fmt: fmt.name)


def values_and_midpoints(fmt: Format) -> torch.Tensor:
    """Every representable value, and every point halfway between neighbours, exact in float32."""
    table = reference.representable(fmt)
    return torch.cat([table, (table[1:] + table[:-1]) / 2]).float()


@formats
def test_representable_values_round_to_themselves(fmt: Format) -> None:
    table = reference.representable(fmt).float()
    assert torch.equal(fmt.round(table), table)


@formats
def test_rounding_is_to_nearest_with_ties_to_even(fmt: Format) -> None:
    random = torch.randn(4000, generator=torch.Generator().manual_seed(0)) * fmt.max / 3
    values = torch.cat([values_and_midpoints(fmt), random.clamp(fmt.min, fmt.max)])
    assert torch.equal(fmt.round(values), reference.round_to(fmt, values).float())


@floats
def test_rounding_equals_ml_dtypes(fmt: Format) -> None:
    random = torch.randn(4000, generator=torch.Generator().manual_seed(1)) * fmt.max / 3
    values = torch.cat([values_and_midpoints(fmt), random.clamp(-fmt.max, fmt.max)])
    expected = values.numpy().astype(ORACLES[fmt]).astype(np.float32)
    assert np.array_equal(fmt.round(values).numpy(), expected)


@floats
def test_enumerated_values_are_those_of_ml_dtypes(fmt: Format) -> None:
    codes = np.arange(2**fmt.bits, dtype=np.uint8).view(ORACLES[fmt]).astype(np.float64)
    finite = np.unique(codes[np.isfinite(codes)])
    assert np.array_equal(finite, reference.representable(fmt).unique().numpy())


@pytest.mark.parametrize(
    ("fmt", "dtype"), [(INT8, np.int8), (INT4, ml_dtypes.int4), (INT2, ml_dtypes.int2)], ids=["int8", "int4", "int2"]
)
def test_integers_are_those_of_ml_dtypes(fmt: Format, dtype: type) -> None:
    limits = ml_dtypes.iinfo(dtype)
    assert reference.representable(fmt).tolist() == list(range(limits.min, limits.max + 1))


@floats
def test_the_smallest_normal_and_the_spacing_below_it_are_those_of_ml_dtypes(fmt: Format) -> None:
    limits = ml_dtypes.finfo(ORACLES[fmt])
    below = torch.tensor([0.0, float(limits.smallest_normal) / 2])
    assert 2.0**fmt.smallest_exponent == float(limits.smallest_normal)
    assert fmt.ulp(below).tolist() == [float(limits.smallest_subnormal)] * 2


def any_float32(count: int) -> torch.Tensor:
    """Finite float32 values of all magnitudes and signs: random bits."""
    bits = torch.randint(-(2**31), 2**31, (count,), generator=torch.Generator().manual_seed(2), dtype=torch.int32)
    values = bits.view(torch.float32)
    return values[values.isfinite()]


@formats
def test_values_of_all_magnitudes_round_as_the_reference_does(fmt: Format) -> None:
    values = any_float32(4000)
    assert torch.equal(fmt.round(values), reference.round_to(fmt, values).float())


@torch_floats
def test_rounding_equals_the_cast_of_torch_up_to_the_largest_value(fmt: Format) -> None:
    """Beyond it the cast overflows to NaN or infinity, where a quantizer saturates."""
    values = any_float32(100_000).clamp(-fmt.max, fmt.max)
    assert torch.equal(fmt.round(values), values.to(storage_dtype(fmt)).float())


@torch_floats
def test_zero_keeps_its_sign_as_in_torch(fmt: Format) -> None:
    values = torch.tensor([0.0, -0.0, 1e-30, -1e-30])
    rounded = fmt.round(values)
    assert (rounded == 0).all()
    assert torch.equal(rounded.signbit(), values.to(storage_dtype(fmt)).float().signbit())


@torch_floats
def test_rounded_values_are_exact_in_the_torch_dtype(fmt: Format) -> None:
    values = fmt.round(values_and_midpoints(fmt))
    assert torch.equal(values.to(storage_dtype(fmt)).float(), values)


@formats
def test_values_beyond_the_largest_saturate(fmt: Format) -> None:
    values = torch.tensor([fmt.max * 1.01, fmt.min * 3, 1e30, -1e30, torch.inf, -torch.inf])
    assert fmt.round(values).tolist() == [fmt.max, fmt.min] * 3


@formats
def test_nan_stays_nan(fmt: Format) -> None:
    assert fmt.round(torch.tensor([torch.nan])).isnan().all()


def codes_of(fmt: Format) -> torch.Tensor:
    return torch.arange(2**fmt.bits, dtype=torch.uint8)


@formats
def test_every_code_decodes_to_the_formats_values_in_order(fmt: Format) -> None:
    values = fmt.decode(codes_of(fmt))
    assert torch.equal(values[values.isfinite()].double().unique(), reference.representable(fmt))


@formats
def test_every_code_is_encoded_as_itself(fmt: Format) -> None:
    """But NaN's payload: NaN has one code a sign."""
    codes = codes_of(fmt)
    values = fmt.decode(codes)
    assert torch.equal(fmt.encode(values)[~values.isnan()], codes[~values.isnan()])
    assert fmt.decode(fmt.encode(values)).isnan().equal(values.isnan())


@floats
def test_every_code_decodes_as_in_ml_dtypes(fmt: Format) -> None:
    codes = codes_of(fmt)
    expected = codes.numpy().view(ORACLES[fmt]).astype(np.float32)
    assert np.array_equal(fmt.decode(codes).numpy(), expected, equal_nan=True)
    assert np.array_equal(np.signbit(fmt.decode(codes).numpy()), np.signbit(expected))


@torch_floats
def test_every_code_decodes_as_in_torch(fmt: Format) -> None:
    expected = codes_of(fmt).view(storage_dtype(fmt)).float()
    assert torch.equal(fmt.decode(codes_of(fmt)).nan_to_num(-1.5), expected.nan_to_num(-1.5))


@formats
def test_encoding_any_value_is_rounding_it(fmt: Format) -> None:
    values = torch.cat([values_and_midpoints(fmt), any_float32(4000)])
    kept = values if isinstance(fmt, FloatFormat) else values.clamp(fmt.min, fmt.max)
    assert torch.equal(fmt.decode(fmt.encode(kept)), fmt.round(kept))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@formats
def test_every_tie_of_a_smaller_dtype_is_rounded_as_the_reference_does(fmt: Format, dtype: torch.dtype) -> None:
    """Every value of the dtype: its ties with the format are among them."""
    values = torch.arange(-(2**15), 2**15, dtype=torch.int16).view(dtype)
    values = values[values.isfinite()]
    assert torch.equal(fmt.round(values), reference.round_to(fmt, values).float())


@pytest.mark.parametrize(
    ("fmt", "codes"), [(FP8_E4M3, [0x7E, 0xFE]), (FP8_E5M2, [0x7C, 0xFC]), (FP4_E2M1, [7, 15]), (INT4, [7, 8])], ids=str
)
def test_infinities_have_their_code_or_saturate(fmt: Format, codes: list[int]) -> None:
    assert fmt.encode(torch.tensor([torch.inf, -torch.inf])).tolist() == codes


@pytest.mark.parametrize("fmt", [INT8, INT2, FP6_E2M3, FP6_E3M2, FP4_E2M1, NF4], ids=lambda fmt: fmt.name)
def test_nan_is_refused_where_no_code_is_nan(fmt: Format) -> None:
    with pytest.raises(ValueError, match=f"2 values are NaN, which {fmt.name} cannot represent"):
        fmt.encode(torch.tensor([1.0, torch.nan, torch.nan]))


@pytest.mark.parametrize(("fmt", "code"), [(FP8_E4M3, 0x7F), (FP8_E5M2, 0x7F)], ids=["fp8", "fp8e5m2"])
def test_nan_has_its_code(fmt: Format, code: int) -> None:
    assert fmt.encode(torch.tensor([torch.nan, -torch.nan])).tolist() == [code, code + 0x80]


def test_nf4_is_symmetric_in_nothing_but_its_ends_and_zero() -> None:
    """Eight values below zero with it, eight above, as its authors say."""
    values = torch.tensor(NF4.values)
    assert (values[:-1] < values[1:]).all()
    assert (values < 0).sum() == 7 and (values > 0).sum() == 8
