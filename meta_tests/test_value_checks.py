"""Checks of values at all sizes: kernels that take few shapes have them all, and an index that overflows is seen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from meta_tests.mutants import DequantizedProduct, PlainProduct
from quantsuite.checks import CHECKS, CheckFailure, NotApplicable, NotSupported, property_name, sizes
from quantsuite.scheme import Scheme

INT8 = Scheme.parse("int8-row")
PARTIAL: dict[str, Callable[[int, int, int], bool]] = {
    "M up to 16": lambda m, n, k: m <= 16,
    "M = 1": lambda m, n, k: m == 1,
    "M = 1, N in 64, K in 256": lambda m, n, k: m == 1 and not (n % 64 or k % 256),
    "M in 16": lambda m, n, k: m % 16 == 0,
    "M in 128": lambda m, n, k: m % 128 == 0,
    "M above 16, K in 128": lambda m, n, k: m > 16 and k % 128 == 0,
    "M up to 8, K in 16": lambda m, n, k: m <= 8 and k % 16 == 0,
}


def not_run(kernel: Any) -> dict[str, str]:
    """The checks that do not run, and why."""
    found = {}
    for check in CHECKS["linear"]:
        try:
            check(kernel, INT8, device="cpu", dtype=torch.float32, seed=0)
        except (NotApplicable, NotSupported) as error:
            found[property_name(check)] = type(error).__name__
    return found


@pytest.mark.parametrize("takes", PARTIAL.values(), ids=PARTIAL)
def test_a_kernel_that_takes_few_shapes_runs_every_check(takes: Callable[[int, int, int], bool]) -> None:
    class Partial(DequantizedProduct):
        def linear(self, x: Tensor, packed: Any) -> Tensor:
            flat = x.reshape(-1, x.shape[-1])
            assert takes(len(flat), *packed.shape), f"asked for {flat.shape} x {packed.shape}"
            return super().linear(x, packed)

        def unsupported_shape(self, scheme: Scheme, device: str, m: int, n: int, k: int) -> str | None:
            return None if takes(m, n, k) else "refused"

    assert not_run(Partial()) == not_run(DequantizedProduct())


def overflowing(y: Tensor) -> Tensor:
    """Outputs whose index has more than 20 bits are not written."""
    y.view(-1)[2**20 :] = 0
    return y


def test_an_index_that_overflows_is_seen_where_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sizes, "HUGE", 2**20)
    monkeypatch.setenv(sizes.HUGE_VARIABLE, "1")
    given = {"device": "cpu", "dtype": torch.float32, "seed": 0}
    assert sizes.check_product_beyond_int32_indices(PlainProduct(), INT8, **given) == 0
    with pytest.raises(CheckFailure, match="tokens from"):
        sizes.check_product_beyond_int32_indices(PlainProduct(after=overflowing), INT8, **given)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("scheme", ["int8-row", "int8-row:int8-token"])
def test_scales_that_are_an_ulp_off_are_granted_their_roundings(scheme: str, dtype: torch.dtype) -> None:
    kernel = PlainProduct(w_scale=lambda scale: scale * (1 + 2.0**-23))
    for check in (sizes.check_product_of_scaled_codes_is_exact, sizes.check_product_of_longest_k_is_exact):
        found = check(kernel, Scheme.parse(scheme), device="cpu", dtype=dtype, seed=0)
        assert found > 0 if dtype == torch.float32 else found <= 1


def test_a_sum_that_is_an_ulp_off_beside_exact_scales_is_caught() -> None:
    kernel = PlainProduct(after=lambda y: torch.where(y.abs() > 1000, y * (1 + 2.0**-23), y))
    with pytest.raises(CheckFailure, match="no error is allowed"):
        sizes.check_product_of_scaled_codes_is_exact(kernel, INT8, device="cpu", dtype=torch.float32, seed=0)
