"""Deliberate faults, each caught by a named check, and the faultless kernels that pass them all."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from meta_tests.bias_faults import BIAS_FAULTS, FAULTLESS_WITH_TAILS
from meta_tests.lifetime_faults import LIFETIME_FAULTS
from meta_tests.mutants import (
    AsymmetricQuantizer,
    DequantizedProduct,
    PlainProduct,
    PlainQuantizer,
    StoredProduct,
    amax_scale,
    exact_sums,
)
from meta_tests.training_faults import TRAINING_FAULTS
from meta_tests.value_faults import VALUE_FAULTS
from quantsuite.checks import CHECKS, CheckFailure, NotApplicable, property_name
from quantsuite.checks.emulation import accumulate, keep_bits
from quantsuite.formats import FP8_E5M2
from quantsuite.kernels.operations import OPERATIONS
from quantsuite.quantize import QuantizedTensor, dequantize, fake_quantize, largest_code, quantize
from quantsuite.scale_formats import SMALLEST_SCALE
from quantsuite.scheme import Operand, Scheme


def run(kernel: Any, scheme: str, name: str, dtype: torch.dtype = torch.float32) -> None:
    check = next(check for check in CHECKS[kernel.operation] if property_name(check) == name)
    check(kernel, OPERATIONS[kernel.operation].parse(scheme), device="cpu", dtype=dtype, seed=0)


def half_away(values: Tensor, operand: Any) -> Tensor:
    return values.sign() * (values.abs() + 0.5).floor()


def stochastic(values: Tensor, operand: Any) -> Tensor:
    return (values + torch.rand_like(values)).floor()


def swap_pairs(values: Tensor) -> Tensor:
    return values.unflatten(-1, (-1, 2)).flip(-1).flatten(-2)


def signed_peak(view: Tensor, shared: Any, operand: Any) -> Tensor:
    return (view.amax(shared, keepdim=True) / operand.format.max).clamp(min=2.0**-126)


def one_scale(view: Tensor, shared: Any, operand: Any) -> Tensor:
    return amax_scale(view, tuple(range(view.ndim)), operand)


def rounded_to_power_of_two(scale: Tensor) -> Tensor:
    return torch.exp2(scale.log2().round())


def lose_subnormals(values: Tensor, operand: Any) -> Tensor:
    rounded = operand.format.round(values)
    return torch.where(rounded.abs() < 2.0**operand.format.smallest_exponent, 0.0, rounded)


def round_mantissa_away(values: Tensor, operand: Any) -> Tensor:
    ulp = operand.format.ulp(values)
    return half_away(values / ulp, operand) * ulp


def stochastic_mantissa(values: Tensor, operand: Any) -> Tensor:
    ulp = operand.format.ulp(values)
    return stochastic(values / ulp, operand) * ulp


def zero_beyond(values: Tensor, size: int, dimension: int) -> Tensor:
    """Zeros after the first ``size`` rows (dimension 0) or columns (-1)."""
    kept = values.narrow(dimension, 0, min(size, values.shape[dimension]))
    rest = values.narrow(dimension, kept.shape[dimension], values.shape[dimension] - kept.shape[dimension])
    return torch.cat([kept, torch.zeros_like(rest)], dimension)


def zero_beyond_sums(size: int, dimension: int) -> Any:
    return lambda x, w: zero_beyond(exact_sums(x, w), size, dimension)


def flush(codes: Tensor) -> Tensor:
    return torch.where(codes.abs() < 2.0**-6, 0.0, codes)


def storage_order(x: Tensor) -> Tensor:
    return x.as_strided(x.shape, (x.shape[1], 1)) if x.ndim == 2 else x


def halve_in_place(x: Tensor) -> Tensor:
    return x.mul_(0.5).mul(2)


def drop_odd_column(values: Tensor) -> Tensor:
    if values.shape[-1] % 2 and values.shape[-1] > 1:
        values = torch.cat([values[..., :-1], torch.zeros_like(values[..., :1])], dim=-1)
    return values


SCALE_FAULTS = {
    "scale in float16": lambda v, s, o: amax_scale(v, s, o).half().float().clamp(min=2.0**-24),
    "scale in bfloat16": lambda v, s, o: amax_scale(v, s, o).bfloat16().float(),
    "scale no smaller than 1e-5": lambda v, s, o: amax_scale(v, s, o).clamp(min=1e-5),
    "scale 0.3% too large": lambda v, s, o: amax_scale(v, s, o) * 1.003,
    "half of amax": lambda v, s, o: amax_scale(v, s, o) / 2,
    "scale of amax / 128": lambda v, s, o: v.abs().amax(s, keepdim=True).clamp(min=1e-38) / (largest_code(o) + 1),
    "scale of zero rows not guarded": lambda v, s, o: v.abs().amax(s, keepdim=True) / largest_code(o),
}


def plain(**steps: Any) -> PlainQuantizer:
    return PlainQuantizer(**steps)


QUANTIZER_FAULTS: list[tuple[str, Any, str, str]] = [
    ("truncation", plain(round=lambda v, o: v.trunc()), "int8-row", "elements_within_bound"),
    ("half away from zero", plain(round=half_away), "int8-row", "ties_go_to_even"),
    ("half up", plain(round=lambda v, o: (v + 0.5).floor()), "int8-row", "ties_go_to_even"),
    ("FP8 ties away from zero", plain(round=round_mantissa_away), "fp8-row", "ties_go_to_even"),
    ("FP8 subnormals flushed", plain(round=lose_subnormals), "fp8-row", "codes_are_kept"),
    ("FP4 subnormals flushed", plain(round=lose_subnormals), "fp4-g32", "codes_are_kept"),
    ("stochastic rounding", plain(round=stochastic), "int8-row", "repeatable"),
    ("swapped nibbles", plain(after=swap_pairs), "int4-g32", "elements_within_bound"),
    ("scale of the wrong row", plain(scale_used=lambda s: s.roll(1, 0)), "int8-row", "elements_within_bound"),
    ("off by one group", plain(scale_used=lambda s: s.roll(1, -2)), "int4-g32", "elements_within_bound"),
    ("one scale for all rows", plain(scale=one_scale), "int8-row", "blocks_are_independent"),
    ("one scale for all groups", plain(scale=one_scale), "int4-g32", "blocks_are_independent"),
    ("amax without the sign", plain(scale=signed_peak), "int8-row", "elements_within_bound"),
    ("scale a power of two", plain(scale_used=rounded_to_power_of_two), "int8-row", "elements_within_bound"),
    ("float16 scale underflows", plain(scale=SCALE_FAULTS["scale in float16"]), "int8-row", "subnormal_values"),
    ("bfloat16 scale", plain(scale=SCALE_FAULTS["scale in bfloat16"]), "fp8-row", "values_are_nearest"),
    ("scale has a floor", plain(scale=SCALE_FAULTS["scale no smaller than 1e-5"]), "int8-row", "subnormal_values"),
    ("amax / 128", plain(scale=SCALE_FAULTS["scale of amax / 128"]), "int8-row", "all_codes_are_used"),
    ("zero rows divide", plain(scale=SCALE_FAULTS["scale of zero rows not guarded"]), "int8-row", "zeros_stay_zero"),
    ("clips at -127", plain(clip=lambda c, o: c.clamp(-127, 127)), "int8-row-full", "all_codes_are_used"),
    (
        "wraps at 128",
        plain(round=lambda v, o: v.round(), clip=lambda c, o: (c + 128) % 256 - 128),
        "int8-row-full",
        "elements_within_bound",
    ),
    ("clips at 126", plain(clip=lambda c, o: c.clamp(-126, 126)), "int8-row", "codes_are_kept"),
    ("hides NaN", plain(before=torch.nan_to_num, refuses=False), "int8-row", "nan_is_not_hidden"),
    ("writes to its input", plain(before=halve_in_place), "int8-row", "repeatable"),
    ("reads in storage order", plain(before=storage_order), "int8-row", "layouts"),
    ("loses the last odd column", plain(after=drop_odd_column), "int8-row", "shapes"),
    ("overflows in float16", plain(before=lambda x: x.half()), "int8-row", "one_outlier"),
    ("offset by one code", plain(after=lambda v: v + 1e-3), "int8-row", "powers_of_two_factor_out"),
    (
        "negative codes one too low",
        plain(round=lambda v, o: v.round() - (v < -1).float()),
        "int8-row",
        "signs_are_symmetric",
    ),
    (
        "zero point off by one",
        AsymmetricQuantizer(minus=lambda z: z + 1),
        "int8-row-asym",
        "elements_within_bound",
    ),
    ("scale 0.3% too large", plain(scale=SCALE_FAULTS["scale 0.3% too large"]), "int8-row", "values_are_nearest"),
    ("stochastic FP4", plain(round=stochastic_mantissa), "fp4-g32", "values_are_nearest"),
    ("clips at half of amax", plain(scale=SCALE_FAULTS["half of amax"]), "int4-g32-clip", "search_reduces_errors"),
    ("searches no scale", plain(), "int4-g32-clip", "search_reduces_errors"),
    ("rows beyond 64 lost", plain(after=lambda v: zero_beyond(v, 64, 0)), "int8-row", "shapes"),
    ("columns beyond 2048 lost", plain(after=lambda v: zero_beyond(v, 2048, -1)), "int4-g32", "shapes"),
    (
        "hides -inf",
        plain(before=lambda x: x.nan_to_num(torch.nan, torch.inf, 0), refuses=False),
        "int8-row",
        "nan_is_not_hidden",
    ),
    (
        "NaN at the end hidden",
        plain(before=lambda x: torch.cat([x[:-1], x[-1:].nan_to_num()]), refuses=False),
        "int8-row",
        "nan_is_not_hidden",
    ),
    (
        "negative blocks without zero",
        AsymmetricQuantizer(high=lambda high: high, zero=lambda z: z.round().clamp(0, 255)),
        "int8-row-asym",
        "elements_within_bound",
    ),
    ("zero point outside of zero", AsymmetricQuantizer(minus=lambda z: z + 0.25), "int8-row-asym", "zeros_stay_zero"),
]


def narrow(bits: int, **options: Any) -> Any:
    return lambda x, w: accumulate(x, w, bits=bits, **options)


def wrapped(bits: int, offset: int = 0) -> Any:
    """Sums in an integer accumulator of ``bits``, of codes that an offset has made unsigned."""

    def sums(x: Tensor, w: Tensor) -> Tensor:
        whole = (x.to(torch.int64) + offset) @ (w.to(torch.int64) + offset).T
        wrapped = (whole + 2 ** (bits - 1)) % 2**bits - 2 ** (bits - 1)
        corrections = offset * (x.sum(-1, keepdim=True) + w.sum(-1)) + offset**2 * x.shape[-1]
        return (wrapped - corrections.to(torch.int64)).float()

    return sums


def drop_tail(size: int) -> Any:
    return lambda x, w: exact_sums(x[:, : max(1, x.shape[1] // size * size)], w[:, : max(1, w.shape[1] // size * size)])


def first_of_k(size: int) -> Any:
    return lambda x, w: exact_sums(x[:, :size], w[:, :size])


def drop_tail_of_one_token(x: Tensor, w: Tensor) -> Tensor:
    return drop_tail(8)(x, w) if len(x) == 1 else exact_sums(x, w)


def split_k_in_bfloat16(x: Tensor, w: Tensor) -> Tensor:
    parts = zip(x.tensor_split(4, dim=1), w.tensor_split(4, dim=1), strict=True)
    return sum(exact_sums(*part).bfloat16().float() for part in parts)


def zero_last_of_odd(y: Tensor) -> Tensor:
    return torch.cat([y[:-1], torch.zeros_like(y[-1:])]) if len(y) % 2 and len(y) > 1 else y


def product(**steps: Any) -> PlainProduct:
    return PlainProduct(**steps)


W8A8, FP8 = "int8-row:int8-token", "fp8-row:fp8-token"
PRODUCT_FAULTS: list[tuple[str, Any, str, str]] = [
    ("14-bit accumulator claimed as float32", product(sums=narrow(14)), FP8, "accumulator_as_claimed"),
    ("14 bits, truncated", product(sums=narrow(14, truncate=True)), FP8, "accumulator_as_claimed"),
    ("14 bits, promoted", product(sums=narrow(14, promotion=128)), FP8, "accumulator_as_claimed"),
    ("bfloat16 accumulator", product(sums=narrow(8)), W8A8, "product_of_codes_is_exact"),
    ("float16 sums", product(sums=lambda x, w: exact_sums(x, w).half().float()), W8A8, "product_of_codes_is_exact"),
    ("int16 overflow", product(sums=wrapped(16)), W8A8, "product_of_codes_is_exact"),
    ("int24 overflow", product(sums=wrapped(24), accumulator_bits=31), W8A8, "longest_integer_sum"),
    (
        "int32 overflow of unsigned codes",
        product(sums=wrapped(32, offset=128), accumulator_bits=31),
        W8A8,
        "longest_integer_sum",
    ),
    ("weight scale of the wrong row", product(w_scale=lambda s: s.roll(1, 0)), W8A8, "product_within_bound"),
    ("scale of the wrong token", product(x_scale=lambda s: s.roll(1, 0)), W8A8, "product_within_bound"),
    ("one scale for all tokens", product(x_scale=lambda s: s.amax().expand_as(s)), W8A8, "rows_are_independent"),
    ("tail of K dropped", product(sums=drop_tail(8)), W8A8, "product_shapes"),
    ("tail of 16 of K dropped", product(sums=drop_tail(16)), FP8, "product_of_unit_vectors"),
    ("FP8 subnormals flushed", product(sums=lambda x, w: exact_sums(x, flush(w))), FP8, "product_of_unit_vectors"),
    ("tokens beyond 64 lost", product(sums=zero_beyond_sums(64, 0)), W8A8, "product_shapes"),
    ("rows beyond 256 lost", product(sums=zero_beyond_sums(256, 1)), W8A8, "product_shapes"),
    ("last odd token dropped", product(after=zero_last_of_odd), W8A8, "product_shapes"),
    ("float16 result", product(after=lambda y: y.half().float()), W8A8, "product_of_all_magnitudes"),
    (
        "float16 activations",
        product(before=lambda x: x.half().float().clamp(-65504, 65504)),
        "int8-row",
        "product_with_an_outlier",
    ),
    ("activations quantized in secret", product(quantizes_x=True), "int8-row", "product_within_bound"),
    ("float16 weight scale", product(w_scale=lambda s: s.half().float()), W8A8, "product_of_all_magnitudes"),
    ("a bias appears", product(after=lambda y: y + 1e-20), W8A8, "product_of_zeros"),
    (
        "hides NaN",
        product(before=torch.nan_to_num, after=torch.nan_to_num, refuses=False),
        W8A8,
        "product_nan_is_not_hidden",
    ),
    ("writes to its input", product(before=halve_in_place), W8A8, "product_repeatable"),
    ("reads in storage order", product(before=storage_order), W8A8, "product_layouts"),
    ("tail of K dropped for one token", product(sums=drop_tail_of_one_token), W8A8, "product_of_unit_vectors"),
    ("partial sums in bfloat16", product(sums=split_k_in_bfloat16), W8A8, "product_of_codes_is_exact"),
    ("bfloat16 weight scale", product(w_scale=lambda s: s.bfloat16().float()), FP8, "product_of_unit_vectors"),
    (
        "TF32 activations",
        DequantizedProduct(before=lambda x: keep_bits(x, 11).float()),
        "int8-row",
        "product_of_codes_is_exact",
    ),
    (
        "scale of the next group",
        DequantizedProduct(quantizer=plain(scale_used=lambda s: s.roll(1, -2))),
        "int4-g32",
        "product_within_bound",
    ),
    (
        "zero point off by one",
        DequantizedProduct(quantizer=AsymmetricQuantizer(minus=lambda z: z + 1)),
        "int8-row-asym",
        "product_of_codes_is_exact",
    ),
    ("K beyond 2048 lost", DequantizedProduct(sums=first_of_k(2048)), "int8-row", "product_of_codes_is_exact"),
    ("not linear", product(after=lambda y: y + y.abs().clamp(max=1e-6)), W8A8, "product_powers_of_two_factor_out"),
]


def anew(quantized: QuantizedTensor) -> QuantizedTensor:
    """Values of codes, rounded to nearest once more."""
    return quantize(dequantize(quantized), quantized.operand)


def one_less(quantized: QuantizedTensor) -> QuantizedTensor:
    return replace(quantized, values=(quantized.values.float() - 1).clamp(min=-7).to(quantized.values.dtype))


def reordered(quantized: QuantizedTensor) -> QuantizedTensor:
    return replace(quantized, values=quantized.values.roll(1, 0))


def double_scale(quantized: QuantizedTensor) -> QuantizedTensor:
    return replace(quantized, scale=2 * quantized.scale)


LAYER_FAULTS: list[tuple[str, Any, str, str]] = [
    ("bias added twice", StoredProduct(add=lambda y, b: y + 2 * b), "int8-row", "product_with_bias"),
    ("bias of the next output", StoredProduct(add=lambda y, b: y + b.roll(1)), "int8-row", "product_with_bias"),
    ("bias in bfloat16", StoredProduct(add=lambda y, b: y + b.bfloat16()), "int8-row", "product_with_bias"),
    ("bias left out", StoredProduct(add=lambda y, b: y), W8A8, "product_with_bias"),
    ("chosen codes rounded anew", StoredProduct(accepts=anew), "int4-g32", "product_of_chosen_codes"),
    ("chosen codes of a row rounded anew", StoredProduct(accepts=anew), "int8-row", "product_of_chosen_codes"),
    ("chosen codes reordered", StoredProduct(accepts=reordered), "int8-row", "product_of_chosen_codes"),
    ("unpacked codes rounded anew", StoredProduct(shows=anew), "int4-g32", "chosen_codes_are_kept"),
    ("unpacked scales doubled", StoredProduct(shows=double_scale), "int8-row", "chosen_codes_are_kept"),
    ("one code less", StoredProduct(chooses=one_less), "int4-g32", "packed_codes_are_nearest"),
    ("unpacks one code less", StoredProduct(shows=one_less), "int8-row", "packed_codes_are_nearest"),
    ("keeps bfloat16 beside", StoredProduct(keeps=lambda w: w.bfloat16()), "int8-row", "resident_bytes"),
    ("keeps four bits in bytes", StoredProduct(keeps=lambda w: w.char()), "int4-g32", "resident_bytes"),
    ("keeps the weight in a list", StoredProduct(keeps=lambda w: [{"w": w}]), "int8-row", "resident_bytes"),
]

FAULTS = (
    QUANTIZER_FAULTS + PRODUCT_FAULTS + LAYER_FAULTS + VALUE_FAULTS + TRAINING_FAULTS + LIFETIME_FAULTS + BIAS_FAULTS
)


@pytest.mark.parametrize(
    ("kernel", "scheme", "check"),
    [pytest.param(*fault, id=f"{fault[0].operation}: {name}") for name, *fault in FAULTS],
)
def test_a_fault_is_caught_by_the_check_named_for_it(kernel: Any, scheme: str, check: str) -> None:
    with pytest.raises(CheckFailure):
        run(kernel, scheme, check)


class E5M2:
    """Right but for the format."""

    def quantize(self, x: Tensor, operand: Operand) -> Tensor:
        return fake_quantize(x, replace(operand, format=FP8_E5M2))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("scheme", ["fp8-row", "mxfp8", "fp8-b32x64"])
def test_products_with_another_fp8_format_are_caught_in_every_dtype(scheme: str, dtype: torch.dtype) -> None:
    with pytest.raises(CheckFailure, match="unit activations"):
        run(DequantizedProduct(quantizer=E5M2()), scheme, "product_of_unit_vectors", dtype)


@pytest.mark.parametrize("multiple", [64, 128, 256])
def test_a_product_that_takes_only_multiples_runs_every_check(multiple: int) -> None:
    def refuse(scheme: Scheme, device: str, *sizes: int) -> str | None:
        return "no multiple" if any(size % multiple for size in sizes) else None

    class Tiled(DequantizedProduct):
        unsupported_shape = staticmethod(refuse)

    def not_applicable(kernel: Any) -> set[str]:
        found = set()
        for name in map(property_name, CHECKS["linear"]):
            try:
                run(kernel, "int8-row", name)
            except NotApplicable:
                found.add(name)
        return found

    assert not_applicable(Tiled()) == not_applicable(DequantizedProduct())


def reciprocal(view: Tensor, shared: Any, operand: Any) -> Tensor:
    """As a device does that divides by a number by multiplying with its reciprocal."""
    return (view.abs().amax(shared, keepdim=True) * (1 / largest_code(operand))).clamp(min=SMALLEST_SCALE)


FAULTLESS = [
    PlainQuantizer(),
    PlainQuantizer(scale=reciprocal, name="plain-reciprocal"),
    DequantizedProduct(quantizer=PlainQuantizer(scale=reciprocal), name="dequantized-reciprocal"),
    AsymmetricQuantizer(),
    PlainProduct(accumulator_bits=31),
    DequantizedProduct(),
    DequantizedProduct(quantizer=AsymmetricQuantizer(), schemes=("int8-row-asym",)),
    StoredProduct(),
    *FAULTLESS_WITH_TAILS,
]


@pytest.mark.parametrize(
    ("kernel", "scheme"),
    [(each, scheme) for each in FAULTLESS for scheme in each.schemes],
    ids=lambda value: getattr(value, "name", value),
)
def test_the_faultless_kernel_passes_every_check(kernel: Any, scheme: str) -> None:
    for check in CHECKS[kernel.operation]:
        try:
            run(kernel, scheme, property_name(check))
        except NotApplicable:
            continue


def test_every_check_catches_a_fault() -> None:
    caught = {(kernel.operation, check) for _, kernel, _, check in FAULTS}
    checks = {(operation, property_name(check)) for operation, checks in CHECKS.items() for check in checks}
    assert checks - caught == {("linear", "product_beyond_int32_indices")}  # in test_value_checks.py
