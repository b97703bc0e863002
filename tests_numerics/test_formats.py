"""Rounding to a number format, against oracles that the project did not write."""

import ml_dtypes
import numpy as np
import pytest
import torch

from quantsuite import reference
from quantsuite.formats import FORMATS, FP4_E2M1, FP6_E2M3, FP6_E3M2, FP8_E4M3, FP8_E5M2, INT2, INT4, INT8, Format

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
    values = torch.cat([values_and_midpoints(fmt), random.clamp(-fmt.max, fmt.max)])
    assert torch.equal(fmt.round(values).double(), reference.round_to(fmt, values))


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
def test_integers_are_those_of_ml_dtypes_but_the_most_negative(fmt: Format, dtype: type) -> None:
    limits = ml_dtypes.iinfo(dtype)
    assert reference.representable(fmt).tolist() == list(range(limits.min + 1, limits.max + 1))


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
    assert torch.equal(fmt.round(values).double(), reference.round_to(fmt, values))


@torch_floats
def test_rounding_equals_the_cast_of_torch_up_to_the_largest_value(fmt: Format) -> None:
    """Beyond it the cast overflows to NaN or infinity, where a quantizer saturates."""
    values = any_float32(100_000).clamp(-fmt.max, fmt.max)
    assert torch.equal(fmt.round(values), values.to(fmt.storage).float())


@torch_floats
def test_zero_keeps_its_sign_as_in_torch(fmt: Format) -> None:
    values = torch.tensor([0.0, -0.0, 1e-30, -1e-30])
    rounded = fmt.round(values)
    assert (rounded == 0).all()
    assert torch.equal(rounded.signbit(), values.to(fmt.storage).float().signbit())


@torch_floats
def test_rounded_values_are_exact_in_the_torch_dtype(fmt: Format) -> None:
    values = fmt.round(values_and_midpoints(fmt))
    assert torch.equal(values.to(fmt.storage).float(), values)


@formats
def test_values_beyond_the_largest_saturate(fmt: Format) -> None:
    values = torch.tensor([fmt.max * 1.01, -fmt.max * 3, 1e30, -1e30, torch.inf, -torch.inf])
    assert fmt.round(values).tolist() == [fmt.max, -fmt.max] * 3


@formats
def test_nan_stays_nan(fmt: Format) -> None:
    assert fmt.round(torch.tensor([torch.nan])).isnan().all()
