"""Inputs of the checks: shapes that fit a scheme, from small to large, and values that are hard."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from quantsuite import reference
from quantsuite.checks.outcome import NotApplicable
from quantsuite.formats import IntegerFormat
from quantsuite.granularity import PerBlock, PerGroup, PerTensor
from quantsuite.scheme import Operand

LARGE, SMALL = 2.0**40, 2.0**-60


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
        outlier = draw.clone()
        outlier.view(-1)[:: max(1, outlier.numel() // 5)] *= 1000
        yield f"outliers of 1000 [{n}, {k}]", outlier
        yield f"magnitude {LARGE:g} [{n}, {k}]", draw * LARGE
        yield f"magnitude {SMALL:g} [{n}, {k}]", draw * SMALL


def grid(operand: Operand) -> Tensor:
    """The values of all codes at scale one, ascending, float64.

    Raises:
        NotApplicable: if no tensor makes the operand's scale exactly one.
    """
    if operand.symmetric:
        return reference.representable(operand.format)
    assert isinstance(operand.format, IntegerFormat)
    return torch.arange(2**operand.format.bits, dtype=torch.float64)


def at_scale_one(values: Tensor, operand: Operand, *, device: str, dtype: torch.dtype) -> Tensor:
    """A matrix that holds ``values`` ``[n]`` in blocks whose scale is exactly one.

    Each block begins with the grid's largest value; the last is filled up with zeros.

    Raises:
        NotApplicable: if the dtype cannot hold the values, or a block has no room for more than its largest.
    """
    if not torch.equal(values.to(dtype).double(), values):
        raise NotApplicable(f"{dtype} cannot hold the values of {operand.format.name} and their midpoints")
    rows, columns = block_shape(operand)
    if isinstance(operand.granularity, PerGroup | PerBlock):
        room = rows * columns - 1
    else:
        room = len(values)
    if room < 1:
        raise NotApplicable(f"{operand} has blocks of one element")
    count = -(-len(values) // room)
    blocks = torch.zeros(count * room, dtype=torch.float64)
    blocks[: len(values)] = values
    anchor = grid(operand).max().expand(count, 1)
    blocks = torch.cat([anchor, blocks.reshape(count, room)], dim=1)
    if isinstance(operand.granularity, PerBlock):
        blocks = blocks.reshape(count, rows, columns).transpose(0, 1).reshape(rows, count * columns)
    elif not isinstance(operand.granularity, PerTensor):
        blocks = blocks.reshape(count, -1)
    return blocks.to(dtype).to(device)


def round_at_scale_one(matrix: Tensor, operand: Operand) -> Tensor:
    """What quantization at scale one must give: the nearest value of the grid, ties to even (float64)."""
    if operand.symmetric:
        return reference.round_to(operand.format, matrix.cpu())
    values = grid(operand)
    return matrix.double().cpu().round().clamp(values.min(), values.max())
