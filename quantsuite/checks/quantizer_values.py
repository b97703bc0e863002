"""What quantizers must make of values that are hard: codes and ties at scales that differ, and the ends of ranges.

All inputs are decided: scales are powers of two, so that quotients are exact and one value is right.
"""

from __future__ import annotations

import math
from itertools import product

import torch
from torch import Tensor

from quantsuite import reference
from quantsuite.checks.draws import anchor, at_scale_one, block_shape, code_values, grid, normal, top
from quantsuite.checks.exact import ExactOperand, draw_operand
from quantsuite.checks.magnitudes import draw_extreme
from quantsuite.checks.oracle import rounding_error
from quantsuite.checks.outcome import CheckFailure, NotApplicable, compare, same
from quantsuite.checks.quantizers import other_blocks
from quantsuite.checks.quantizing import quantized
from quantsuite.granularity import PerBlock, PerGroup, PerTensor
from quantsuite.kernels.protocol import Quantizer
from quantsuite.scale_formats import PowerOfTwoScale, TwoLevelScale
from quantsuite.scheme import Operand

SHAPES = ((1, 1), (2, 3), (7, 5), (33, 9), (130, 4))
"""Rows, and blocks along K."""
MANY = (256, 512, 1024, 2048, 4096)
"""Sizes that kernels split rows by: threads of a block, and programs of a grid."""
FEW_COLUMNS = 16
EXPONENTS = (-100, -60, -20, 20, 60, 100)
FLOAT16_EXPONENTS = (-6, -3, 3, 6)
LARGEST_SCALE = 125
"""Exponent of a scale whose reciprocal is a normal number."""
BOUNDARIES = (-90, -30, -7, -1, 0, 1, 6, 30, 90)


def _exponents(dtype: torch.dtype, wide: tuple[int, ...]) -> tuple[int, ...]:
    return FLOAT16_EXPONENTS if dtype == torch.float16 else wide


def _held(values: Tensor, dtype: torch.dtype) -> bool:
    return torch.equal(values.to(dtype).double(), values)


def check_codes_at_scales_that_differ(
    kernel: Quantizer, operand: Operand, *, device: str, dtype: torch.dtype, seed: int
) -> float:
    """Dense codes come back as they are where each row and block has a scale of its own.

    What sets a scale is the first, the last, or any element of its block.  Scales with a zero point may be a rounding
    off, by the order of their operations.
    """
    rows, width = block_shape(operand)
    compared = False
    for n, blocks in SHAPES:
        generator = torch.Generator().manual_seed(seed)
        k = width * blocks if width > 1 else 32 * blocks + 1
        x = draw_operand(operand, rows * n, k, limit=127, binades=2, generator=generator)
        if not _held(x.given, dtype):
            continue
        _compare_codes(kernel, operand, x, device=device, dtype=dtype)
        compared = True
    if not compared:
        raise NotApplicable(f"{dtype} cannot hold the codes of {operand}")
    return 0.0


def _compare_codes(kernel: Quantizer, operand: Operand, x: ExactOperand, *, device: str, dtype: torch.dtype) -> None:
    """Whether codes come back as they are."""
    __tracebackhide__ = True
    got = quantized(kernel, operand, x.given.to(dtype).to(device))
    expected, allowed = x.values, torch.zeros(())
    if torch.equal(got.double().cpu(), expected):
        return
    if not operand.symmetric:
        extent = x.values.abs().amax(1, keepdim=True).expand_as(expected)
        allowed = rounding_error(2 * extent, torch.float32) + rounding_error(expected.abs(), got.dtype)
    compare(f"codes at scales that differ {list(x.given.shape)}", got, expected, allowed)


def check_codes_of_many_rows(
    kernel: Quantizer, operand: Operand, *, device: str, dtype: torch.dtype, seed: int
) -> float:
    """Rows beyond 256, 512, 1024, 2048 and 4096 have scales of their own: dense codes come back as they are."""
    if isinstance(operand.granularity, PerTensor):
        raise NotApplicable(f"{operand} has one scale for all rows")
    rows, width = block_shape(operand)
    counts = [rows * (math.ceil(size / rows) + 1) for size in MANY]
    k = 2 * width if operand.scale.of_tensor else max(width, FEW_COLUMNS)
    generator = torch.Generator().manual_seed(seed)
    whole = draw_operand(operand, counts[-1], k, limit=127, binades=2, generator=generator)
    if not _held(whole.given, dtype):
        raise NotApplicable(f"{dtype} cannot hold the codes of {operand}")
    for count in counts:
        _compare_codes(kernel, operand, whole.rows(slice(count)), device=device, dtype=dtype)
    return 0.0


def check_codes_and_ties_at_far_scales(
    kernel: Quantizer, operand: Operand, *, device: str, dtype: torch.dtype, seed: int
) -> float:
    """Codes are kept, and ties of both signs go to even, at scales far from one, up to the largest of a dtype."""
    if not operand.symmetric:
        raise NotApplicable(f"scales of {operand} may be a rounding off, by the order of their operations")
    values = grid(operand)
    values = torch.cat([values, (values[1:] + values[:-1]) / 2])
    one = at_scale_one(values, operand, device="cpu", dtype=torch.float64)
    table = code_values(operand)
    nearest = reference.round_to(operand.format, one).clamp(min=table.min())
    expected = torch.where(one > anchor(operand), one, nearest)
    compared = False
    highest = math.floor(math.log2(torch.finfo(dtype).max / top(operand)))
    for exponent in (*_exponents(dtype, EXPONENTS), min(highest, LARGEST_SCALE)):
        factor = 2.0**exponent
        x = one * factor
        if not (_held(x, dtype) and _held(expected * factor, dtype)):
            continue
        got = quantized(kernel, operand, x.to(dtype).to(device))
        same(f"codes and midpoints at scale 2^{exponent}", got, expected * factor)
        compared = True
    if not compared:
        raise NotApplicable(f"{dtype} cannot hold the values of {operand} and their midpoints at other scales")
    return 0.0


def _blocks(values: Tensor, operand: Operand, peaks: Tensor) -> Tensor:
    """A matrix that has a block for each peak, which is followed by ``values``, and filled up with zeros."""
    rows, columns = block_shape(operand)
    width = columns if isinstance(operand.granularity, PerGroup | PerBlock) else len(values) + 1
    block = torch.zeros(len(peaks), width, dtype=torch.float64)
    block[:, 0] = peaks
    count = min(width - 1, len(values))
    block[:, 1 : 1 + count] = values[:count] * 2.0 ** (peaks.abs().log2().floor()[:, None] - 1)
    if width > 1:
        block[1::2] = block[1::2].flip(1)
    if isinstance(operand.granularity, PerBlock):
        return block.reshape(1, -1).repeat(rows, 1)
    return block.reshape(1, -1) if isinstance(operand.granularity, PerGroup) else block


def check_scales_at_powers_of_two(
    kernel: Quantizer, operand: Operand, *, device: str, dtype: torch.dtype, seed: int
) -> float:
    """Scales that are powers of two change exactly where the largest magnitude is one: not an ulp before, nor after."""
    if not isinstance(operand.scale, PowerOfTwoScale):
        raise NotApplicable(f"scales of {operand} are no powers of two")
    compared = False
    values = torch.tensor([0.5, -0.25, 0.75, -0.5, 0.125, -1.0, 1.0])
    for exponent in _exponents(dtype, BOUNDARIES):
        power = torch.tensor(2.0**exponent, dtype=dtype)
        ends = (torch.nextafter(power, power * 0), power, torch.nextafter(power, power * 2))
        peaks = torch.stack([sign * end for sign in (1, -1) for end in ends]).double()
        x = _blocks(values.double(), operand, peaks)
        expected = reference.quantize_dequantize(x, operand)
        if not (_held(x, dtype) and _held(expected, dtype)):
            continue
        got = quantized(kernel, operand, x.to(dtype).to(device))
        same(f"largest magnitudes around 2^{exponent}", got, expected)
        compared = True
    if not compared:
        raise NotApplicable(f"{dtype} cannot hold the values of {operand} around powers of two")
    return 0.0


def check_values_beyond_the_largest_saturate(
    kernel: Quantizer, operand: Operand, *, device: str, dtype: torch.dtype, seed: int
) -> float:
    """Where a scale leaves magnitudes beyond the largest code they become it: half an ulp, one, and all up to twice.

    None becomes NaN or infinite, as E4M3's 464 and E5M2's 61440 do in a conversion that does not saturate.
    """
    fmt = operand.format
    if not isinstance(operand.scale, PowerOfTwoScale):
        raise NotApplicable(f"scales of {operand} leave nothing beyond the largest code but roundings")
    ulp = fmt.max - float(grid(operand)[-2])
    limit = 2.0 ** (math.floor(math.log2(fmt.max)) + 1)
    beyond = [fmt.max + part * ulp for part in (0.25, 0.5, 0.75, 1.0, 1.5)]
    peaks = torch.tensor([sign * value for value in beyond if value < limit for sign in (1, -1)], dtype=torch.float64)
    compared = False
    for exponent in (0, *_exponents(dtype, EXPONENTS)):
        x = _blocks(torch.tensor([0.5, -0.5, 1.0, -1.0]).double(), operand, peaks) * 2.0**exponent
        x = x.to(dtype).double()
        expected = reference.quantize_dequantize(x, operand)
        if not torch.isfinite(x).all() or x.abs().max() == 0 or not _held(expected, dtype):
            continue
        got = quantized(kernel, operand, x.to(dtype).to(device))
        same(f"beyond the largest code at scale 2^{exponent}", got, expected)
        compared = True
    if not compared:
        raise NotApplicable(f"{dtype} cannot hold values beyond the largest code of {operand}")
    return 0.0


def check_small_block_scales(
    kernel: Quantizer, operand: Operand, *, device: str, dtype: torch.dtype, seed: int
) -> float:
    """Block scales that are subnormal are kept, not flushed nor raised."""
    if not isinstance(operand.scale, TwoLevelScale) or not isinstance(operand.granularity, PerGroup):
        raise NotApplicable(f"scales of {operand} have no subnormal numbers")
    scales = reference.representable(operand.scale.format)
    scales = scales[(scales > 0) & (scales <= 2.0**-4)]
    codes = grid(operand)
    codes = codes[torch.arange(operand.granularity.size) % len(codes)]
    codes[0] = anchor(operand)
    blocks = codes * scales[:, None]
    first = torch.zeros(1, operand.granularity.size, dtype=torch.float64)
    first[0, -1] = top(operand)
    x = torch.cat([blocks, first]).reshape(1, -1)
    if not _held(x, dtype):
        raise NotApplicable(f"{dtype} cannot hold codes at subnormal scales of {operand}")
    return same("codes at subnormal scales", quantized(kernel, operand, x.to(dtype).to(device)), x)


def check_values_at_the_ends_of_a_dtype(
    kernel: Quantizer, operand: Operand, *, device: str, dtype: torch.dtype, seed: int
) -> float:
    """Tensors near the smallest and the largest normal number keep the bound: none is lost, none becomes infinite.

    Their scales are subnormal in float16, and 2^-127 in E8M0; what a code stands for beyond the largest number of the
    dtype saturates.
    """
    rows, columns = block_shape(operand)
    tightest = 0.0
    for extreme in draw_extreme(kernel, operand, 8 * rows, columns * max(2, 32 // columns), dtype=dtype, seed=seed):
        got = quantized(kernel, operand, extreme.values.to(device))
        bound = extreme.allowed + rounding_error(extreme.expected.abs() + extreme.allowed, got.dtype, times=2)
        tightest = max(tightest, compare(f"{extreme.name} values", got, extreme.expected, bound))
    return tightest


def check_negative_zeros_are_zeros(
    kernel: Quantizer, operand: Operand, *, device: str, dtype: torch.dtype, seed: int
) -> float:
    """Negative zeros are zeros: alone in their block, and among other values."""
    rows, columns = block_shape(operand)
    zeros = torch.full((2 * rows, 4 * columns), -0.0, device=device, dtype=dtype)
    same("negative zeros", quantized(kernel, operand, zeros), zeros)
    x = normal(2 * rows, 4 * columns, seed=seed, device=device, dtype=dtype) - 2
    place = torch.arange(x.numel(), device=device).reshape(x.shape) % 2 == 0
    x = x.masked_fill(place, -0.0)
    return same("negative zeros among values", quantized(kernel, operand, x)[place], x[place])


def check_nan_stays_in_its_block(
    kernel: Quantizer, operand: Operand, *, device: str, dtype: torch.dtype, seed: int
) -> float:
    """A NaN or an infinity that is not refused changes nothing outside of its block, but to NaN in the same row."""
    rows, columns = block_shape(operand)
    x = normal(3 * rows, 4 * columns, seed=seed, device=device, dtype=dtype)
    generator = torch.Generator().manual_seed(seed)
    drawn = tuple(int(torch.randint(size, (), generator=generator)) for size in x.shape)
    before = quantized(kernel, operand, x)
    for bad, place in product((torch.nan, torch.inf, -torch.inf), ((0, 0), (-1, -1), drawn)):
        others = other_blocks(operand, (x.shape[0], x.shape[1]), place).to(device)
        changed = x.clone()
        changed[place] = bad
        try:
            after = quantized(kernel, operand, changed)
        except ValueError:
            continue
        row = torch.zeros_like(others).index_fill_(0, torch.tensor(place[0] % len(x), device=device), True)
        others &= ~(row & after.isnan())
        same(f"other blocks after x[{place[0]}, {place[1]}] = {bad}", after[others], before[others])
        if torch.isfinite(after[place]):
            raise CheckFailure(f"x[{place[0]}, {place[1]}] = {bad} became {after[place].item():.9g} without an error")
    return 0.0
