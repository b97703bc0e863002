"""Tensors whose last group or block is not full: what is defined there, and whether a kernel takes them.

The last group is what remains of K.  Zeros that complete it change neither its largest magnitude nor its range, which
covers zero, so that the padded tensor says what is right.  Such sizes may be refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from quantsuite.checks.draws import block_shape
from quantsuite.checks.layouts import described
from quantsuite.checks.outcome import CheckFailure
from quantsuite.granularity import PerBlock, PerGroup
from quantsuite.scheme import Operand

SMALLER = 2.0**-5
"""The last group's magnitudes beside those of the group before, which must not decide its scale."""


def has_groups(operand: Operand | None) -> bool:
    """Whether elements along K are divided into groups or blocks of more than one."""
    return operand is not None and isinstance(operand.granularity, PerGroup | PerBlock) and block_shape(operand)[1] > 1


def remainders(width: int) -> list[int]:
    """Numbers of elements of a last group that is not full: one, one more than half, all but one."""
    return sorted({1, min(width // 2 + 1, width - 1), width - 1})


def with_small_tail(values: Tensor, tail: int) -> Tensor:
    """The same with its last columns :data:`SMALLER`."""
    values = values.clone()
    values[..., -tail:] *= SMALLER
    return values


def refused_or(case: str, function: str, call: Callable[[], Tensor]) -> Tensor | None:
    """What a kernel returns for a size that no group divides, ``None`` if it refuses it.

    Raises:
        CheckFailure: if it raises anything but a ``ValueError`` or a ``NotImplementedError``.
    """
    __tracebackhide__ = True
    try:
        return call()
    except (CheckFailure, torch.OutOfMemoryError):
        raise
    except (ValueError, NotImplementedError):
        return None
    except Exception as error:
        raise CheckFailure(f"{case}: {function} raised {described(error)}; take it or raise a ValueError") from error


def sizes(operand: Operand, groups: tuple[int, ...] = (0, 2)) -> Iterator[tuple[int, int, int]]:
    """Of matrices whose last group is not full: rows, columns, and how many elements that group has."""
    rows, width = block_shape(operand)
    for full in groups:
        for tail in remainders(width):
            yield 3 * rows + (rows > 1), full * width + tail, tail
