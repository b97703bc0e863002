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
    if operand.scale == "e4m3" or operand.clip:
        raise NotApplicable(f"{operand} has no scale that is known to be exactly one")
    return code_values(operand)


def anchor(operand: Operand) -> float:
    """The value that makes its block's scale exactly one."""
    return largest_code(operand) if operand.symmetric else float(grid(operand).max())


def at_scale_one(values: Tensor, operand: Operand, *, device: str, dtype: torch.dtype) -> Tensor:
    """A matrix that holds ``values`` ``[n]`` in blocks whose scale is exactly one.

    Each block begins with the value that sets its scale, which others are cut to; the last is filled up with zeros.

    Raises:
        NotApplicable: if the dtype cannot hold the values, or a block has no room for more than its largest.
    """
    limit = anchor(operand)
    values = values.clamp(-limit, limit)
    if not torch.equal(values.to(dtype).double(), values):
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
    if isinstance(operand.granularity, PerBlock):
        blocks = blocks.reshape(count, rows, columns).transpose(0, 1).reshape(rows, count * columns)
    elif not isinstance(operand.granularity, PerTensor):
        blocks = blocks.reshape(count, -1)
    return blocks.to(dtype).to(device)


def round_at_scale_one(matrix: Tensor, operand: Operand) -> Tensor:
    """What quantization at scale one must give: the nearest value of the grid, ties to even (float64)."""
    values = grid(operand)
    nearest = reference.round_to(operand.format, matrix.cpu()) if operand.symmetric else matrix.double().cpu().round()
    return nearest.clamp(values.min(), values.max())
