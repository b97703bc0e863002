"""Faults in values that show at some sizes, scales or special values only, and the check that must catch each."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from meta_tests.mutants import DequantizedProduct, PlainProduct, PlainQuantizer, amax_scale, exact_sums
from quantsuite.checks.emulation import keep_bits
from quantsuite.quantize import dequantize, largest_code, quantize
from quantsuite.scheme import Operand

Sums = Callable[[Tensor, Tensor], Tensor]
W8A8, FP8 = "int8-row:int8-token", "fp8-row:fp8-token"


def groups(scale_used: Callable[[Tensor], Tensor]) -> DequantizedProduct:
    return DequantizedProduct(quantizer=PlainQuantizer(scale_used=scale_used))


def wrapped_after_16(scale: Tensor) -> Tensor:
    """The number of a group in four bits."""
    return scale[:, torch.arange(scale.shape[1]) % 16]


def tail_with_the_scale_before(scale: Tensor) -> Tensor:
    """Beyond the last whole 256 of K, in groups of 32, the scale is that of the last group before."""
    number, whole = torch.arange(scale.shape[1]), scale.shape[1] // 8 * 8
    return scale[:, torch.where(number >= whole, max(whole - 1, 0), number)] if whole else scale


def tokens_scaled(wrong: Callable[[int], bool]) -> PlainProduct:
    """Of some numbers of tokens the last has the scale of the one before."""

    def x_scale(scale: Tensor) -> Tensor:
        m = scale.shape[0]
        return scale[[*range(m - 1), m - 2]] if scale.ndim == 2 and wrong(m) else scale

    return PlainProduct(x_scale=x_scale)


def rows_scaled(wrong: Callable[[int], bool]) -> PlainProduct:
    """Of some numbers of rows the last has the scale of the one before."""
    return PlainProduct(w_scale=lambda s: s[[*range(len(s) - 1), len(s) - 2]] if wrong(len(s)) else s)


def large_at_once(x: Tensor, w: Tensor) -> Tensor:
    """Where both M and N have more than one tile of 256, the last tile's sums lack their last product."""
    y = exact_sums(x, w)
    if len(x) > 256 and len(w) > 256:
        y[256:, 256:] = exact_sums(x[256:, :-1], w[256:, :-1])
    return y


def beyond_8192(fault: Sums) -> Sums:
    return lambda x, w: fault(x, w) if x.shape[1] > 8192 else exact_sums(x, w)


def first_8192(x: Tensor, w: Tensor) -> Tensor:
    return exact_sums(x[:, :8192], w[:, :8192])


def bfloat16_parts(x: Tensor, w: Tensor) -> Tensor:
    parts = zip(x.tensor_split(4, dim=1), w.tensor_split(4, dim=1), strict=True)
    return sum((exact_sums(*part).bfloat16().float() for part in parts), torch.zeros(()))


def whole_parts(size: int) -> Sums:
    """Beyond a part of K only whole parts are summed."""

    def sums(x: Tensor, w: Tensor) -> Tensor:
        k = x.shape[1]
        used = k if k <= size else k // size * size
        return exact_sums(x[:, :used], w[:, :used])

    return sums


def counted_to(size: int) -> Callable[[Tensor], Tensor]:
    """Scales beyond a number of rows are those of the rows so many before."""
    return lambda scale: scale[torch.arange(len(scale)) % size]


def flush_subnormals(values: Tensor, operand: Any) -> Tensor:
    rounded = operand.format.round(values)
    return torch.where(rounded.abs() < 2.0**operand.format.smallest_exponent, 0.0, rounded)


def lose_last_bit_of_subnormals(values: Tensor, operand: Any) -> Tensor:
    """As by a table of codes without the smallest."""
    rounded, smallest = operand.format.round(values), operand.format.ulp(torch.zeros(()))
    return torch.where(rounded.abs() == smallest, 0.0, rounded)


def e5m2(rounds: Callable[[Tensor, Any], Tensor]) -> DequantizedProduct:
    return DequantizedProduct(quantizer=PlainQuantizer(round=rounds))


class WithoutRefusal(PlainProduct):
    """Passes on what is not finite, as most kernels do."""

    def __init__(self, **steps: Any) -> None:
        super().__init__(refuses=False, **steps)


def hide_in_a_single_token(x: Tensor) -> Tensor:
    return x.nan_to_num() if len(x) == 1 else x


def hide_inside(x: Tensor) -> Tensor:
    """Looks for NaN in whole tiles of 16 tokens only."""
    whole = len(x) // 16 * 16
    return torch.cat([x[:whole], x[whole:].nan_to_num()]) if whole else x


def masked_by_product(y: Tensor) -> Tensor:
    """Tokens of a tile are added up, masked by zeros."""
    return y + 0 * y.sum(0, keepdim=True)


def masked_columns(y: Tensor) -> Tensor:
    return y + 0 * y.sum(1, keepdim=True)


SIZE_FAULTS: list[tuple[str, Any, str, str]] = [
    ("groups counted in four bits", groups(wrapped_after_16), "int4-g32", "product_of_scaled_codes_is_exact"),
    (
        "tail of K by the scale before",
        groups(tail_with_the_scale_before),
        "int4-g32",
        "product_of_scaled_codes_is_exact",
    ),
    (
        "scale of the last of 9 to 15 tokens",
        tokens_scaled(lambda m: 8 < m < 16),
        W8A8,
        "product_of_every_number_of_tokens",
    ),
    (
        "scale of the last token before a tile of 64",
        tokens_scaled(lambda m: m % 64 == 63),
        FP8,
        "product_of_every_number_of_tokens",
    ),
    ("scale of the last of 65 rows", rows_scaled(lambda n: n == 65), W8A8, "product_of_sizes_around_tiles"),
    ("one product lost where all is large", PlainProduct(sums=large_at_once), W8A8, "product_of_sizes_around_tiles"),
    (
        "K beyond 8192 lost",
        DequantizedProduct(sums=beyond_8192(first_8192)),
        "int4-g32",
        "product_of_longest_k_is_exact",
    ),
    (
        "long K split in bfloat16",
        DequantizedProduct(sums=beyond_8192(bfloat16_parts)),
        "int8-row",
        "product_of_longest_k_is_exact",
    ),
    (
        "part of K beyond 4096 lost",
        DequantizedProduct(sums=whole_parts(4096)),
        "int4-g32",
        "product_of_k_around_splits_is_exact",
    ),
    (
        "part of K beyond 2048 lost",
        PlainProduct(sums=whole_parts(2048)),
        W8A8,
        "product_of_k_around_splits_is_exact",
    ),
    (
        "scales of 1024 tokens",
        PlainProduct(x_scale=counted_to(1024)),
        FP8,
        "product_of_many_tokens_and_outputs",
    ),
    (
        "scales of 2048 outputs",
        PlainProduct(w_scale=counted_to(2048)),
        "int8-row",
        "product_of_many_tokens_and_outputs",
    ),
    ("E5M2 subnormals flushed", e5m2(flush_subnormals), "fp8e5m2-row", "product_of_smallest_codes_is_exact"),
    (
        "E5M2 smallest code lost",
        e5m2(lose_last_bit_of_subnormals),
        "fp8e5m2-row",
        "product_of_smallest_codes_is_exact",
    ),
    (
        "NaN hidden in a single token",
        WithoutRefusal(before=hide_in_a_single_token),
        "int8-row",
        "product_nan_is_not_hidden",
    ),
    ("NaN hidden after whole tiles", WithoutRefusal(before=hide_inside), "int8-row", "product_nan_is_not_hidden"),
    ("NaN of a token spreads", WithoutRefusal(after=masked_by_product), W8A8, "product_nan_stays_in_its_row"),
    ("NaN of a row spreads", WithoutRefusal(after=masked_columns), "int8-row", "product_nan_stays_in_its_row"),
]


def amax_without_a_single_tail(view: Tensor, shared: Any, operand: Any) -> Tensor:
    """The only element after whole tiles of 32 is left out."""
    alone = view.shape[-1] > 32 and view.shape[-1] % 32 == 1
    return amax_scale(view[..., :-1] if alone else view, shared, operand)


def last_of_33_rows(scale: Tensor) -> Tensor:
    return torch.cat([scale[:-1], scale[-2:-1]]) if len(scale) % 32 == 1 and len(scale) > 1 else scale


def half_of_extent(view: Tensor, shared: Any, operand: Any) -> Tensor:
    """Of a range that is symmetric around zero: its length overflows where it exceeds the largest float32."""
    peak = view.abs().amax(shared, keepdim=True)
    return ((peak - -peak) / (2 * largest_code(operand))).clamp(min=2.0**-126)


def scaled_up_first(view: Tensor, shared: Any, operand: Any) -> Tensor:
    return (amax_scale(view * 1024, shared, operand) / 1024).clamp(min=2.0**-126)


def microscaling(exponent: Callable[[Tensor], Tensor]) -> Callable[[Tensor, Any, Any], Tensor]:
    """The scale of Microscaling, by some way to the exponent of the largest magnitude."""

    def scale(view: Tensor, shared: Any, operand: Any) -> Tensor:
        peak = view.abs().amax(shared, keepdim=True)
        exponents = exponent(peak).where(peak > 0, -127) - math.floor(math.log2(operand.format.max))
        return torch.ones_like(peak).ldexp(exponents.clamp(-127, 127).int())

    return scale


def exact_exponent(peak: Tensor) -> Tensor:
    return (peak.frexp().exponent - 1).float()


def rounds_unless(saturates: Callable[[Tensor, Any], Tensor]) -> PlainQuantizer:
    """A conversion after which what does not saturate is no number beyond the largest."""

    def convert(values: Tensor, operand: Any) -> Tensor:
        nearest = (values / operand.format.ulp(values)).round() * operand.format.ulp(values)
        return torch.where(nearest.abs() > operand.format.max, torch.nan, nearest)

    def rounded(values: Tensor, operand: Any) -> Tensor:
        largest = operand.format.max
        return torch.where(saturates(values.abs(), operand), values.sign() * largest, convert(values, operand))

    return PlainQuantizer(scale=microscaling(exact_exponent), round=rounded, clip=lambda codes, operand: codes)


def beyond_the_tie(magnitudes: Tensor, operand: Any) -> Tensor:
    """Magnitudes that are nearer to the next value than to the largest, but not the tie."""
    largest = operand.format.max
    return magnitudes > largest + operand.format.ulp(torch.tensor(largest)) / 2


@dataclass(frozen=True, kw_only=True)
class TwoLevels:
    """NVFP4's quantizer, with a fault in its block scales."""

    scales: Callable[[Tensor], Tensor]
    name: str = "two-levels"
    operation: str = "quantize"
    schemes: tuple[str, ...] = ("nvfp4",)

    def quantize(self, x: Tensor, operand: Operand) -> Tensor:
        quantized = quantize(x, operand)
        scale = self.scales(quantized.scale.float())
        return dequantize(replace(quantized, scale=scale.to(quantized.scale.dtype)))


def flush_scales(scale: Tensor) -> Tensor:
    return torch.where(scale < 2.0**-6, 0.0, scale)


def even_subnormal_scales(scale: Tensor) -> Tensor:
    return torch.where(scale < 2.0**-6, (scale * 2.0**8).floor() * 2.0**-8, scale)


def in_half(scale: Tensor) -> Tensor:
    """Scales as float16 keeps them, codes having been chosen by the exact ones."""
    return scale.half().float()


def without_smallest(scale: Tensor) -> Tensor:
    """E8M0's byte shifted to the exponent of a float32, which is zero for 2^-127."""
    return torch.where(scale == 2.0**-127, 0.0, scale)


def microscaled_without_smallest() -> PlainQuantizer:
    return PlainQuantizer(scale=microscaling(exact_exponent), scale_used=without_smallest)


def negative_zeros_as(value: Callable[[Tensor], Tensor]) -> PlainQuantizer:
    """Sign and magnitude taken apart: minus nothing is a code of its own."""
    return PlainQuantizer(before=lambda x: torch.where((x == 0) & x.signbit(), value(x.abs()), x))


def careless(**steps: Any) -> PlainQuantizer:
    return PlainQuantizer(refuses=False, **steps)


QUANTIZER_VALUE_FAULTS: list[tuple[str, Any, str, str]] = [
    (
        "amax without the tail",
        PlainQuantizer(scale=amax_without_a_single_tail),
        "int8-row",
        "codes_at_scales_that_differ",
    ),
    (
        "scale of the last of 33 rows",
        PlainQuantizer(scale_used=last_of_33_rows),
        "fp8-row",
        "codes_at_scales_that_differ",
    ),
    ("scales of 1024 rows", PlainQuantizer(scale_used=counted_to(1024)), "int8-row", "codes_of_many_rows"),
    ("scales of 4096 rows", PlainQuantizer(scale_used=counted_to(4096)), "fp4-g32", "codes_of_many_rows"),
    ("extent overflows", PlainQuantizer(scale=half_of_extent), "int8-row", "codes_and_ties_at_far_scales"),
    ("scaled up beyond float32", PlainQuantizer(scale=scaled_up_first), "fp4-g32", "codes_and_ties_at_far_scales"),
    (
        "exponent by a rounded logarithm",
        PlainQuantizer(scale=microscaling(lambda peak: peak.log2().floor())),
        "mxfp8",
        "scales_at_powers_of_two",
    ),
    (
        "exponent of an amax of 17 bits",
        PlainQuantizer(scale=microscaling(lambda peak: exact_exponent(keep_bits(peak, 17).float()))),
        "mxfp4",
        "scales_at_powers_of_two",
    ),
    ("E2M1 tie overflows", rounds_unless(beyond_the_tie), "mxfp4", "values_beyond_the_largest_saturate"),
    ("E5M2 tie becomes infinite", rounds_unless(beyond_the_tie), "mxfp8e5m2", "values_beyond_the_largest_saturate"),
    ("subnormal block scales flushed", TwoLevels(scales=flush_scales), "nvfp4", "small_block_scales"),
    ("subnormal block scales cut", TwoLevels(scales=even_subnormal_scales), "nvfp4", "small_block_scales"),
    ("scales in float16", PlainQuantizer(scale_used=in_half), "int8-row", "values_at_the_ends_of_a_dtype"),
    ("scale 2^-127 is zero", microscaled_without_smallest(), "mxfp4", "values_at_the_ends_of_a_dtype"),
    ("minus zero the least code", negative_zeros_as(lambda x: -x.amax()), "int8-row", "negative_zeros_are_zeros"),
    ("minus zero minus one", negative_zeros_as(lambda x: -x.amax() / 7), "int4-g32", "negative_zeros_are_zeros"),
    ("NaN of a block spreads", careless(scale_used=lambda s: s + 0 * s.sum()), "int4-g32", "nan_stays_in_its_block"),
    (
        "NaN of a row in all",
        careless(before=lambda x: x if torch.isfinite(x).all() else x * torch.nan),
        "int8-row",
        "nan_stays_in_its_block",
    ),
]

MAGNITUDE_FAULTS: list[tuple[str, Any, str, str]] = [
    (
        "weight scales in float16",
        PlainProduct(w_scale=in_half),
        "int8-row",
        "product_of_weights_at_the_ends_of_a_dtype",
    ),
    (
        "weight scale 2^-127 is zero",
        DequantizedProduct(quantizer=microscaled_without_smallest()),
        "mxfp4",
        "product_of_weights_at_the_ends_of_a_dtype",
    ),
    (
        "token scales in float16",
        PlainProduct(x_scale=in_half),
        W8A8,
        "product_of_activations_at_the_ends_of_a_dtype",
    ),
    (
        "token scales raised to 1e-12",
        PlainProduct(x_scale=lambda scale: scale.clamp(min=1e-12)),
        FP8,
        "product_of_activations_at_the_ends_of_a_dtype",
    ),
]

VALUE_FAULTS = QUANTIZER_VALUE_FAULTS + SIZE_FAULTS + MAGNITUDE_FAULTS
