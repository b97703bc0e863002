"""Inputs of the checks: shapes that fit a scheme, from small to large, and values that are hard."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from quantsuite import reference
from quantsuite.checks.outcome import NotApplicable
from quantsuite.granularity import PerBlock, PerGroup, PerTensor
from quantsuite.quantize import largest_code
from quantsuite.scale_formats import TwoLevelScale
from quantsuite.scheme import Operand

CHECKED_ROWS, CHECKED_COLUMNS = 130, 2100
"""At least so many has the largest matrix."""


def reach(dtype: torch.dtype) -> int:
    """Of a power of two that normal values and their products can be multiplied with or divided by in a dtype."""
    return 8 if dtype == torch.float16 else 40


def largest_outlier(dtype: torch.dtype) -> float:
    """1e30, or what leaves room for products in a dtype."""
    return 2.0 ** reach(dtype) if dtype == torch.float16 else 1e30


def block_shape(operand: Operand | None) -> tuple[int, int]:
    """Rows and columns that a matrix must be a multiple of."""
    match None if operand is None else operand.granularity:
        case PerGroup(size):
            return 1, size
        case PerBlock(rows, columns):
            return rows, columns
        case _:
            return 1, 1


def normal(*shape: int, seed: int, device: str, dtype: torch.dtype, scale: float = 1.0) -> Tensor:
    """A reproducible normal draw, the same on all devices."""
    values = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * scale
    return values.to(dtype).to(device)


def mixed(rows: int, k: int, *, seed: int, device: str, dtype: torch.dtype) -> Tensor:
    """Values ``[rows, K]`` of many magnitudes: within groups of 16, and from one to the next."""
    generator = torch.Generator().manual_seed(seed)
    within = torch.randint(-8, 1, (rows, k), generator=generator)
    between = torch.randint(-6, 7, (rows, -(-k // 16)), generator=generator).repeat_interleave(16, 1)[:, :k]
    return normal(rows, k, seed=seed, device=device, dtype=dtype) * torch.exp2(within + between).to(dtype).to(device)


def with_hard_range(values: Tensor, operand: Operand | None) -> Tensor:
    """A matrix whose first block has a range that is hard for a zero point: it lies near a half of a step.

    From -52 to 6.125 a step of four bits is 3.875, which bfloat16 holds, and the zero point 13.42 steps from the least
    value; computed in eight bits the step is 3.859, the quotient 13.5, and the largest value is clipped by 0.59 steps.
    """
    if operand is None or operand.symmetric:
        return values
    _, width = block_shape(operand)
    values = values.clone()
    block = values[0, : width if width > 1 else None]
    block[::2], block[1::2], block[:2] = 1.0, -20.0, block.new_tensor([-52.0, 6.125])
    return values


def matrices(operand: Operand, *, seed: int, device: str, dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
    """Named matrices ``[rows, K]`` from small to large: normal, shifted, with outliers, of all magnitudes."""
    rows, columns = block_shape(operand)
    for n, k in (
        (rows, columns),
        (3 * rows, columns * math.ceil(48 / columns)),
        (rows * 8, columns * -(-256 // columns)),
    ):
        draw = normal(n, k, seed=seed, device=device, dtype=dtype)
        yield f"normal [{n}, {k}]", draw
        yield f"normal + 3 [{n}, {k}]", draw + 3
        yield f"normal - 3 [{n}, {k}]", draw - 3
        outlier = draw.clone()
        outlier.view(-1)[:: max(1, outlier.numel() // 5)] *= 1000
        yield f"outliers of 1000 [{n}, {k}]", outlier
        for exponent in (reach(dtype), -reach(dtype) * 3 // 2):
            yield f"magnitude 2^{exponent} [{n}, {k}]", draw * 2.0**exponent


def code_values(operand: Operand) -> Tensor:
    """The values of all codes that an operand uses, in units of its scale, ascending, float64."""
    if operand.symmetric:
        low = operand.format.min if operand.full_range else -operand.format.max
        values = reference.representable(operand.format)
        return values[values >= low]
    return torch.arange(2**operand.format.bits, dtype=torch.float64)


def grid(operand: Operand) -> Tensor:
    """As :func:`code_values`, of an operand that has tensors whose scale is exactly one.

    Raises:
        NotApplicable: if it has none.
    """
    if operand.clip or (operand.scale.of_tensor and isinstance(operand.granularity, PerTensor)):
        raise NotApplicable(f"{operand} has no scale that is known to be exactly one")
    return code_values(operand)


def anchor(operand: Operand) -> float:
    """The value that makes its block's scale exactly one; with E4M3 scales, if the tensor's largest is :func:`top`."""
    return largest_code(operand) if operand.symmetric else float(grid(operand).max())


def top(operand: Operand) -> float:
    """The largest value of a tensor whose blocks have scale one; beyond :func:`anchor` with E4M3 scales only."""
    return anchor(operand) * (operand.scale.format.max if isinstance(operand.scale, TwoLevelScale) else 1)


def at_scale_one(values: Tensor, operand: Operand, *, device: str, dtype: torch.dtype) -> Tensor:
    """A matrix that holds ``values`` ``[n]`` in blocks whose scale is exactly one.

    Each block begins with the value that sets its scale, which others are cut to; the last is filled up with zeros.
    With E4M3 scales one block more holds the tensor's largest value.

    Raises:
        NotApplicable: if the dtype cannot hold the values, or a block has no room for more than its largest.
    """
    limit = anchor(operand)
    values = values.clamp(-limit, limit)
    held = torch.cat([values, torch.tensor([top(operand)])])
    if not torch.equal(held.to(dtype).double(), held):
        raise NotApplicable(f"{dtype} cannot hold the values of {operand.format.name} and their midpoints")
    rows, columns = block_shape(operand)
    room = rows * columns - 1 if isinstance(operand.granularity, PerGroup | PerBlock) else len(values)
    if room < 1:
        raise NotApplicable(f"{operand} has blocks of one element")
    count = -(-len(values) // room)
    blocks = torch.zeros(count * room, dtype=torch.float64)
    blocks[: len(values)] = values
    largest = torch.full((count, 1), limit, dtype=torch.float64)
    blocks = torch.cat([largest, blocks.reshape(count, room)], dim=1)
    if operand.scale.of_tensor:
        above = torch.zeros(1, blocks.shape[1], dtype=torch.float64)
        above[0, 0] = top(operand)
        blocks, count = torch.cat([blocks, above]), count + 1
    if isinstance(operand.granularity, PerBlock):
        blocks = blocks.reshape(count, rows, columns).transpose(0, 1).reshape(rows, count * columns)
    elif not isinstance(operand.granularity, PerTensor):
        blocks = blocks.reshape(count, -1)
    return blocks.to(dtype).to(device)


def round_at_scale_one(matrix: Tensor, operand: Operand) -> Tensor:
    """What quantization at scale one must give: the nearest value of the grid, ties to even (float64)."""
    values = grid(operand)
    exact = matrix.cpu().double()
    nearest = reference.round_to(operand.format, exact) if operand.symmetric else exact.round()
    return torch.where(exact > anchor(operand), exact, nearest.clamp(values.min(), values.max()))
