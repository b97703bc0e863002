"""What a quantizer must hold: ``quantize(x, operand)`` returns the values that the codes stand for.

Each check returns the largest error as a fraction of its bound, 0 where the result is exact.
"""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import product

import torch
from torch import Tensor

from quantsuite import reference
from quantsuite.checks.draws import (
    CHECKED_COLUMNS,
    CHECKED_ROWS,
    anchor,
    at_scale_one,
    block_shape,
    code_values,
    grid,
    largest_outlier,
    matrices,
    normal,
    round_at_scale_one,
)
from quantsuite.checks.oracle import NEAR, nearest_values, rounding_error
from quantsuite.checks.outcome import CheckFailure, NotApplicable, compare, same
from quantsuite.checks.quantizing import quantized, within
from quantsuite.granularity import share_scales
from quantsuite.kernels.protocol import Quantizer, flushes_subnormals
from quantsuite.scheme import Operand


def _within(kernel: Quantizer, operand: Operand, case: str, x: Tensor) -> float:
    return within(operand, case, quantized(kernel, operand, x), x)


def check_elements_within_bound(
    kernel: Quantizer, operand: Operand, *, device: str, dtype: torch.dtype, seed: int
) -> float:
    """No element is further from its value than the format's rounding allows, whatever the magnitudes."""
    draws = matrices(operand, seed=seed, device=device, dtype=dtype)
    return max(_within(kernel, operand, case, x) for case, x in draws)


def check_values_are_nearest(
    kernel: Quantizer, operand: Operand, *, device: str, dtype: torch.dtype, seed: int
) -> float:
    """Away from ties every element becomes the nearest value at the scale that is defined, and no other in the bound.

    What float32 arithmetic may decide either way is left to the bound.
    """
    rows, columns = block_shape(operand)
    shape = rows * math.ceil(8 / rows), columns * math.ceil(256 / columns)
    x = normal(*shape, seed=seed, device=device, dtype=dtype)
    tightest = 0.0
    for case, values in (("normal", x), ("cubes of normal", x**3)):
        got = quantized(kernel, operand, values)
        expected, settled = nearest_values(values, operand)
        expected = torch.where(settled, expected, got.double().cpu())
        tightest = max(tightest, compare(case, got, expected, rounding_error(expected.abs(), got.dtype)))
    return tightest


def check_search_reduces_errors(
    kernel: Quantizer, operand: Operand, *, device: str, dtype: torch.dtype, seed: int
) -> float:
    """No block has a larger squared error than with the scale of its largest magnitude; at few bits some have less."""
    if not operand.clip:
        raise NotApplicable(f"{operand} searches no scales")
    rows, columns = block_shape(operand)
    shape = rows * math.ceil(8 / rows), columns * math.ceil(256 / columns)
    x = normal(*shape, seed=seed, device=device, dtype=dtype)
    got = quantized(kernel, operand, x)
    plain = reference.quantize_dequantize(x.cpu(), replace(operand, clip=False))

    def norms(values: Tensor) -> Tensor:
        view, shared = share_scales(values.double().cpu(), operand.granularity)
        return view.square().sum(shared).sqrt()

    exact = x.double().cpu()
    searched, unsearched = norms(got.double().cpu() - exact), norms(plain - exact)
    if operand.format.bits <= 4 and not (searched < unsearched * (1 - NEAR)).any():
        raise CheckFailure("normal: no block has a smaller error than without a search")
    bound = unsearched + norms(rounding_error(exact.abs(), got.dtype))
    return compare("norms of the errors of normal", searched, torch.zeros_like(searched), bound)


def check_codes_are_kept(kernel: Quantizer, operand: Operand, *, device: str, dtype: torch.dtype, seed: int) -> float:
    """Every value that has a code comes back as it is."""
    x = at_scale_one(grid(operand), operand, device=device, dtype=dtype)
    return same("all codes at scale 1", quantized(kernel, operand, x), round_at_scale_one(x, operand))


def check_ties_go_to_even(kernel: Quantizer, operand: Operand, *, device: str, dtype: torch.dtype, seed: int) -> float:
    """Halfway between two codes the even one is taken."""
    values = grid(operand)
    x = at_scale_one((values[1:] + values[:-1]) / 2, operand, device=device, dtype=dtype)
    return same("all midpoints at scale 1", quantized(kernel, operand, x), round_at_scale_one(x, operand))


def check_all_codes_are_used(
    kernel: Quantizer, operand: Operand, *, device: str, dtype: torch.dtype, seed: int
) -> float:
    """As many values come out as the operand's range has codes, no more and no fewer."""
    expected = grid(operand)
    values = torch.cat([expected, (expected[1:] + expected[:-1]) / 2, expected.min()[None] * 1.0])
    got = quantized(kernel, operand, at_scale_one(values, operand, device=device, dtype=dtype)).double().cpu().unique()
    got = got[got <= anchor(operand)]
    if len(got) != len(expected):
        raise CheckFailure(f"all codes at scale 1: {len(got)} values came out, {operand} has {len(expected)}")
    return same("all codes at scale 1", got, expected)


def check_zeros_stay_zero(kernel: Quantizer, operand: Operand, *, device: str, dtype: torch.dtype, seed: int) -> float:
    """Zeros are represented exactly: in blocks of zeros, and among other values."""
    rows, columns = block_shape(operand)
    shape = (2 * rows, 4 * columns)
    zeros = torch.zeros(shape, device=device, dtype=dtype)
    same(f"zeros {list(shape)}", quantized(kernel, operand, zeros), zeros)
    x = normal(*shape, seed=seed, device=device, dtype=dtype) + 2
    place = torch.arange(x.numel(), device=device).reshape(shape) % 3 == 0
    x = x.masked_fill(place, 0)
    return same("zeros among normal values", quantized(kernel, operand, x)[place], x[place])


def other_blocks(operand: Operand, shape: tuple[int, int], place: tuple[int, int] = (0, 0)) -> Tensor:
    """Where a matrix's elements share no scale with the one at ``place``.

    Raises:
        NotApplicable: if all of them do.
    """
    label = torch.zeros(shape)
    label[place] = 1
    view, shared = share_scales(label, operand.granularity)
    others = (view.amax(shared, keepdim=True).expand_as(view) == 0).reshape(shape)
    if not others.any() or operand.scale.of_tensor:
        raise NotApplicable(f"{operand} has a scale for all elements")
    return others


def check_blocks_are_independent(
    kernel: Quantizer, operand: Operand, *, device: str, dtype: torch.dtype, seed: int
) -> float:
    """A large value changes nothing outside its own block."""
    rows, columns = block_shape(operand)
    x = normal(3 * rows, 4 * columns, seed=seed, device=device, dtype=dtype)
    others = other_blocks(operand, (3 * rows, 4 * columns)).to(device)
    before = quantized(kernel, operand, x)
    x = x.clone()
    x[0, 0] = 1000
    after = quantized(kernel, operand, x)
    return same("other blocks after x[0, 0] = 1000", after[others], before[others])


def check_powers_of_two_factor_out(
    kernel: Quantizer, operand: Operand, *, device: str, dtype: torch.dtype, seed: int
) -> float:
    """Multiplying a tensor by a power of two multiplies its quantized values by the same."""
    if dtype == torch.float16:
        raise NotApplicable("small values are subnormal in float16")
    rows, columns = block_shape(operand)
    x = normal(3 * rows, 4 * columns, seed=seed, device=device, dtype=dtype)
    expected = quantized(kernel, operand, x)
    for exponent in (1, -1, 7, -7):
        factor = 2.0**exponent
        same(f"x * 2^{exponent}", quantized(kernel, operand, x * factor), expected.double() * factor)
    return 0.0


def check_signs_are_symmetric(
    kernel: Quantizer, operand: Operand, *, device: str, dtype: torch.dtype, seed: int
) -> float:
    """Where codes are symmetric the negated tensor is quantized to the negated values."""
    values = code_values(operand)
    if not torch.equal(values, -values.flip(0)):
        raise NotApplicable(f"the codes of {operand} are not symmetric")
    rows, columns = block_shape(operand)
    x = normal(3 * rows, 4 * columns, seed=seed, device=device, dtype=dtype)
    return same("-x", quantized(kernel, operand, -x), -quantized(kernel, operand, x).double())


def check_subnormal_values(kernel: Quantizer, operand: Operand, *, device: str, dtype: torch.dtype, seed: int) -> float:
    """Blocks whose scale would underflow have finite values within the bound."""
    if flushes_subnormals(kernel):
        raise NotApplicable(f"{kernel.name} declares that it flushes subnormal numbers")
    rows, columns = block_shape(operand)
    tightest = 0.0
    for magnitude in (2.0**-120, 2.0**-130, 2.0**-140):
        x = normal(rows, columns * max(1, 8 // columns), seed=seed, device=device, dtype=dtype, scale=magnitude)
        tightest = max(tightest, _within(kernel, operand, f"magnitude {magnitude:g}", x))
    return tightest


def check_one_outlier(kernel: Quantizer, operand: Operand, *, device: str, dtype: torch.dtype, seed: int) -> float:
    """One value of 1e30 (256 in float16) leaves everything finite and within the bound."""
    rows, columns = block_shape(operand)
    x = normal(3 * rows, 4 * columns, seed=seed, device=device, dtype=dtype)
    x[0, 1 % x.shape[1]] = largest_outlier(dtype)
    return _within(kernel, operand, f"one outlier of {largest_outlier(dtype):g}", x)


def check_nan_is_not_hidden(
    kernel: Quantizer, operand: Operand, *, device: str, dtype: torch.dtype, seed: int
) -> float:
    """A NaN or an infinity is refused with a ``ValueError``, or what it became is not finite."""
    rows, columns = block_shape(operand)
    for bad, place in product((torch.nan, torch.inf, -torch.inf), ((0, 0), (1, 2 % columns), (-1, -1))):
        x = normal(3 * rows, 4 * columns, seed=seed, device=device, dtype=dtype)
        x[place] = bad
        try:
            got = quantized(kernel, operand, x)[place]
        except ValueError:
            continue
        if torch.isfinite(got):
            raise CheckFailure(f"x[{place[0]}, {place[1]}] = {bad} became {got.item():.9g} without an error")
    return 0.0


def check_shapes(kernel: Quantizer, operand: Operand, *, device: str, dtype: torch.dtype, seed: int) -> float:
    """Single rows, odd numbers of rows and columns, many of both, and batches keep their shape and the bound."""
    rows, columns = block_shape(operand)
    odd = 1 if columns > 1 else 37
    shapes: list[tuple[int, ...]] = [
        (rows, columns),
        (rows, columns * odd),
        (7 * rows, columns * odd),
        (rows, 3 * columns),
        (rows * math.ceil(CHECKED_ROWS / rows), columns * math.ceil(CHECKED_COLUMNS / columns)),
    ]
    if rows == 1:
        shapes += [(2, 3, columns * odd), (columns * odd,)] if str(operand.granularity) != "row" else []
    tightest = 0.0
    for shape in shapes:
        x = normal(*shape, seed=seed, device=device, dtype=dtype)
        tightest = max(tightest, _within(kernel, operand, f"shape {list(shape)}", x))
    return tightest
