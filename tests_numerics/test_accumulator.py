"""The accumulator probe, against accumulators whose width is known."""

import pytest
import torch

from quantsuite.bounds import exact_int32_terms
from quantsuite.checks import CheckFailure
from quantsuite.checks.accumulator import MOST_BITS, check_accumulator_as_claimed, measure_accumulator
from quantsuite.checks.emulation import NarrowProduct, accumulate, keep_bits
from quantsuite.scheme import Scheme

FP8, INT8, WEIGHT_ONLY = (Scheme.parse(name) for name in ("fp8-row:fp8-token", "int8-row:int8-token", "int8-row"))
WIDTHS = [*((FP8, bits) for bits in (8, 14, 24)), *((INT8, bits) for bits in (8, 13)), (WEIGHT_ONLY, 22)]
truncations = pytest.mark.parametrize("truncate", [False, True], ids=["rounded", "truncated"])


@truncations
@pytest.mark.parametrize(("scheme", "bits"), WIDTHS, ids=str)
def test_the_width_of_an_emulated_accumulator_is_found(scheme: Scheme, bits: int, truncate: bool) -> None:
    kernel = NarrowProduct(bits=bits, truncate=truncate)
    measured = measure_accumulator(kernel, scheme, device="cpu", dtype=torch.float32)
    assert (measured.bits, measured.promotion) == (bits, None)


@truncations
@pytest.mark.parametrize("promotion", [32, 128, 256])
def test_the_promotion_of_partial_sums_is_found(promotion: int, truncate: bool) -> None:
    kernel = NarrowProduct(bits=14, promotion=promotion, truncate=truncate)
    measured = measure_accumulator(kernel, FP8, device="cpu", dtype=torch.float32)
    assert (measured.bits, measured.promotion) == (14, promotion)
    assert str(measured) == f"14 bits, promoted every {promotion} elements of K"


@pytest.mark.parametrize("scheme", [FP8, WEIGHT_ONLY], ids=str)
def test_a_wide_accumulator_is_at_least_the_most_that_is_tried(scheme: Scheme) -> None:
    measured = measure_accumulator(NarrowProduct(bits=52), scheme, device="cpu", dtype=torch.float32)
    assert str(measured) == f"at least {MOST_BITS} bits"


def test_an_accumulator_narrower_than_claimed_fails_with_both_widths() -> None:
    with pytest.raises(CheckFailure, match=r"keeps 14 bits, promoted every 128 elements of K, 24 are claimed"):
        check_accumulator_as_claimed(
            NarrowProduct(bits=14, promotion=128),
            FP8,
            device="cpu",
            dtype=torch.float32,
            seed=0,
        )


@pytest.mark.parametrize("truncate", [False, True])
def test_keeping_24_bits_is_rounding_to_float32(truncate: bool) -> None:
    values = torch.randn(1000, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 1e3
    kept = keep_bits(values, 24, truncate=truncate)
    nearest = values.float().double()
    assert torch.equal(kept, nearest) is not truncate
    assert (kept.abs() <= values.abs()).all() or not truncate


def test_a_wide_emulated_accumulator_sums_as_float64() -> None:
    x, w = (torch.randn(n, 300, generator=torch.Generator().manual_seed(n)) for n in (3, 5))
    assert torch.equal(accumulate(x, w, bits=52, promotion=None), (x.double() @ w.double().T).float())


def test_the_longest_integer_sum_fits_int32_and_one_more_does_not() -> None:
    terms = exact_int32_terms(127, 127)
    assert terms * 127**2 < 2**31 <= (terms + 1) * 127**2
