"""Operands that are codes already, at scales that differ, and whose products sum exactly at any K.

Elements are small whole numbers of their block's scale, scales are powers of two, and one element of each block is the
largest code, which decides the scale whatever float32 divides by.  Each product is then a whole number of a power of
two, and so is their sum: in the declared accumulator it is exact in any order, as its magnitude is bounded by
Cauchy and Schwarz.  What is left is one rounding to the dtype of the result.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from quantsuite.checks.draws import anchor, block_shape, grid
from quantsuite.checks.outcome import NotApplicable
from quantsuite.checks.setting import FLOAT32_BITS, Setting
from quantsuite.formats import FloatFormat
from quantsuite.granularity import PerBlock, PerGroup, PerTensor
from quantsuite.kernels.protocol import accumulator_bits
from quantsuite.scale_formats import PowerOfTwoScale, TwoLevelScale
from quantsuite.scheme import Operand

SIZES = ((127, 2), (31, 2), (15, 2), (7, 2), (3, 2), (3, 1), (1, 1), (1, 0))
"""The largest code beside those that set scales, and how many binades the scales of a row span, from large to small."""
FEW_PRODUCTS = 2**18
"""Whose sums of magnitudes are computed where their norms do not say enough."""
ROW_BINADES = 2
"""Scales of rows lie so many binades around one."""


@dataclass(frozen=True, kw_only=True)
class ExactOperand:
    """A matrix ``[rows, K]`` and what its quantization must make of it, float64.

    Args:
        given: what the kernel is given.
        values: what its codes stand for; other than ``given`` where the full range has no code for its largest value.
        unit: ``[rows, 1]``, of which all values of a row are whole multiples.
        reach: ``[rows, 1]``, the Euclidean norm of a row's codes, a zero point included, in units.
    """

    given: Tensor
    values: Tensor
    unit: Tensor
    reach: Tensor

    def scaled(self, factor: float) -> ExactOperand:
        """The same times a power of two."""
        return ExactOperand(
            given=self.given * factor, values=self.values * factor, unit=self.unit * factor, reach=self.reach
        )

    def rows(self, places: Tensor | slice) -> ExactOperand:
        """Some of its rows."""
        return ExactOperand(
            given=self.given[places], values=self.values[places], unit=self.unit[places], reach=self.reach[places]
        )


@dataclass(frozen=True, kw_only=True)
class ExactPair:
    """Activations ``x`` and a weight, with their product ``[M, N]`` (float64)."""

    x: ExactOperand
    weight: ExactOperand
    product: Tensor


def _places(rows: int, blocks: int, width: int, generator: torch.Generator) -> Tensor:
    """Where in each block its largest value is, ``[rows, blocks]``: first, last, or anywhere, in turn."""
    turn = (torch.arange(rows)[:, None] + torch.arange(blocks)) % 3
    anywhere = torch.randint(width, (rows, blocks), generator=generator)
    return torch.where(turn == 0, 0, torch.where(turn == 1, width - 1, anywhere))


def _steps(operand: Operand, rows: int, blocks: int, binades: int, generator: torch.Generator) -> Tensor:
    """Scales ``[rows, blocks]``: powers of two, and the largest of E4M3 in one block of each row.

    Neighbours always differ, and so do rows and groups that are any power of two apart, as they are numbered modulo
    five and three; which of them comes first is drawn.
    """
    row, block = torch.arange(rows)[:, None], torch.arange(blocks)
    height = operand.granularity.rows if isinstance(operand.granularity, PerBlock) else 1
    first_row, first_block = torch.randint(30, (2,), generator=generator)
    steps = (first_row + row // height) % (2 * ROW_BINADES + 1) - ROW_BINADES
    steps = steps + (first_block + row // height + block) % (binades + 1)
    if isinstance(operand.granularity, PerTensor):
        steps.fill_(-1)
    scales = torch.exp2(steps.double())
    if isinstance(operand.scale, TwoLevelScale):
        scales[torch.arange(rows), 5 * torch.arange(rows) % blocks] = operand.scale.format.max
    return scales


def _largest(operand: Operand, rows: int, blocks: int, generator: torch.Generator) -> Tensor:
    """Of each block the value that sets its scale, in units of it, ``[rows, blocks]``."""
    largest = torch.full((rows, blocks), anchor(operand), dtype=torch.float64)
    if isinstance(operand.scale, PowerOfTwoScale):  # Any value of the largest binade does.
        lowest = 2.0 ** math.floor(math.log2(anchor(operand)))
        largest[torch.rand(rows, blocks, generator=generator) < 0.5] = lowest
    if not operand.full_range:
        largest *= 1 - 2 * torch.randint(2, (rows, blocks), generator=generator)
    return largest


def _small_codes(operand: Operand, limit: int, fine: bool) -> tuple[Tensor, float]:
    """Values of codes up to ``limit`` of a unit, and the unit: one, or the format's smallest value if ``fine``."""
    table, fmt = grid(operand), operand.format
    unit = 1.0
    if isinstance(fmt, FloatFormat) and (fine or fmt.bits < 8):
        unit = float(table[table > 0].min())
    whole = (table / unit) == (table / unit).round()
    small = table[whole & (table != 0) & (table.abs() <= min(limit * unit, anchor(operand)))]
    return small, unit


def draw_operand(
    operand: Operand,
    rows: int,
    k: int,
    *,
    limit: int,
    binades: int,
    generator: torch.Generator,
    fine: bool = False,
    slot: int | None = None,
) -> ExactOperand:
    """A dense matrix ``[rows, K]`` that an operand holds exactly.

    Args:
        operand: whose codes and scales.
        rows: of whole blocks.
        k: of whole blocks.
        limit: the largest code beside those that set scales.
        binades: that the scales of a row span.
        generator: of the draws.
        fine: codes of the smallest values, subnormal ones too, instead of whole numbers.
        slot: of each block, for the value that sets its scale; ``None`` for one that differs.

    Raises:
        NotApplicable: if the operand has no scales that are known, or blocks with no room for what sets them.
    """
    _, width = block_shape(operand)
    width = width if isinstance(operand.granularity, PerGroup | PerBlock) else k
    blocks = k // width
    steps = _steps(operand, rows, blocks, binades, generator)
    place = _places(rows, blocks, width, generator)
    if slot is not None:
        place.fill_(slot % width)
    shift = torch.zeros(rows, blocks)
    if operand.symmetric:
        table, unit = _small_codes(operand, limit, fine)
        codes = table[torch.randint(len(table), (rows, blocks, width), generator=generator)]
        codes.masked_fill_(torch.rand(codes.shape, generator=generator) < 1 / 16, 0)
        largest = _largest(operand, rows, blocks, generator)
        if isinstance(operand.granularity, PerBlock):
            height = operand.granularity.rows
            chosen = (torch.arange(rows)[:, None] // height + torch.arange(blocks)) % height
            there = torch.arange(rows)[:, None] % height == chosen
            largest = torch.where(there, largest, codes.gather(2, place[..., None])[..., 0])
        given = codes.scatter(2, place[..., None], largest[..., None])
        codes = given.clamp(max=operand.format.max)
    else:
        unit, top = 1.0, 2**operand.format.bits - 1
        if width < 2 or isinstance(operand.granularity, PerBlock):
            raise NotApplicable(f"{operand} has blocks with no room for their smallest and largest value")
        first = torch.randint(top + 1, (), generator=generator)
        shift = (first + 7 * torch.arange(rows)[:, None] + 3 * torch.arange(blocks)) % (top + 1)
        if isinstance(operand.granularity, PerTensor):
            shift.fill_(first)
        codes = torch.randint(-limit, limit + 1, (rows, blocks, width), generator=generator).double()
        codes = codes.clamp(-shift[..., None], top - shift[..., None])
        codes.scatter_(2, place[..., None], -shift[..., None].double())
        codes.scatter_(2, ((place + 1) % width)[..., None], (top - shift)[..., None].double())
        given = codes
    given, values = ((each * steps[..., None]).reshape(rows, k) for each in (given, codes))
    finest = steps.amin(1, keepdim=True)
    smallest = unit * (finest.clamp(max=1) if isinstance(operand.scale, TwoLevelScale) else finest)
    magnitudes = values.abs() + (shift * steps)[..., None].expand(rows, blocks, width).reshape(rows, k)
    return ExactOperand(
        given=given, values=values, unit=smallest, reach=(magnitudes / smallest).norm(dim=1, keepdim=True)
    )


def draw_plain(rows: int, k: int, *, limit: int, generator: torch.Generator) -> ExactOperand:
    """Whole numbers ``[rows, K]`` without zeros, of a power of two a row: activations that are not quantized."""
    numbers = torch.randint(1, limit + 1, (rows, k), generator=generator).double()
    numbers *= 1 - 2 * torch.randint(2, (rows, k), generator=generator)
    unit = torch.exp2((torch.arange(rows)[:, None] % (2 * ROW_BINADES + 1) - ROW_BINADES).double())
    return ExactOperand(given=numbers * unit, values=numbers * unit, unit=unit, reach=numbers.norm(dim=1, keepdim=True))


def _lower(values: Tensor, limit: float) -> float:
    """The power of two that brings all magnitudes below a limit."""
    return 2.0 ** min(0, math.floor(math.log2(limit / values.abs().max().clamp(min=1e-30).item())))


def _held(operand: ExactOperand, dtype: torch.dtype) -> bool:
    return torch.equal(operand.given.to(dtype).double(), operand.given)


def _fits(x: ExactOperand, weight: ExactOperand, limit: float) -> bool:
    """Whether the sums of products, whatever their signs, are below a limit in units: by norms, or by themselves."""
    if x.reach.max() * weight.reach.max() < limit:
        return True
    if x.given.numel() * len(weight.given) > FEW_PRODUCTS:
        return False
    x_codes, codes = (each.values.abs() / each.unit for each in (x, weight))
    return bool((x_codes @ codes.T).max() < limit)


def _apart(setting: Setting, x: ExactOperand, weight: ExactOperand) -> tuple[ExactOperand, ExactOperand]:
    """Zeros where the other operand has what sets its scales, in the first or the last place of each block."""
    k = x.given.shape[1]
    operands = setting.scheme.activation, setting.scheme.weight
    x_width, width = (size if size > 1 else k for _, size in map(block_shape, operands))
    column = torch.arange(k)
    at_last, at_first = column % width == width - 1, column % x_width == 0
    if operands[0] is None:
        at_first = torch.zeros_like(at_first)
    return tuple(
        replace(each, given=each.given.masked_fill(there, 0), values=each.values.masked_fill(there, 0))
        for each, there in ((x, at_last), (weight, at_first))
    )


def draw_pair(setting: Setting, m: int, n: int, k: int, *, fine: bool = False, offset: int = 0) -> ExactPair:
    """Dense operands whose sums the declared accumulator holds, with codes as large as it allows.

    Args:
        setting: kernel, scheme, dtype and seed.
        m: tokens.
        n: rows of the weight.
        k: columns.
        fine: as for :func:`draw_operand`.
        offset: of the seed.

    Raises:
        NotApplicable: if there are none, or the dtype cannot hold them.
    """
    scheme, bits = setting.scheme, min(FLOAT32_BITS, accumulator_bits(setting.kernel))
    assert scheme.weight is not None
    for limit, binades in SIZES:
        generator = torch.Generator().manual_seed(setting.seed + offset)
        options = {"limit": limit, "binades": binades, "generator": generator, "fine": fine}
        weight = draw_operand(scheme.weight, n, k, **options, slot=-1 if fine else None)
        if scheme.activation is None:
            x = draw_plain(m, k, limit=limit, generator=generator)
        else:
            x = draw_operand(scheme.activation, m, k, **options, slot=0 if fine else None)
        if fine:
            x, weight = _apart(setting, x, weight)
        if not _fits(x, weight, 2.0**bits):
            continue
        if setting.dtype == torch.float16:
            x, weight = (each.scaled(_lower(each.given, 2.0**10)) for each in (x, weight))
            weight = weight.scaled(_lower(x.values @ weight.values.T, 2.0**15))
        product = x.values @ weight.values.T
        if all(_held(each, setting.dtype) for each in (x, weight)):
            return ExactPair(x=x, weight=weight, product=product)
        raise NotApplicable(f"{setting.dtype} cannot hold the codes of {scheme}")
    raise NotApplicable(f"sums of {k:,} codes of {scheme} do not fit {bits} bits")
