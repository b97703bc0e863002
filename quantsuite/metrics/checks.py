"""What items are refused for: lists of different lengths, and numbers out of range."""

from __future__ import annotations

import math
from collections.abc import Sequence

ROUNDING = 1e-6
"""By which float32 log-probabilities, and what is computed from them, may pass their limits: several ulp of 1."""


def check_finite(name: str, numbers: Sequence[float]) -> None:
    """Refuse what JSON has no number for.

    Raises:
        ValueError: if a number is NaN or infinite.
    """
    for number in numbers:
        if not math.isfinite(number):
            raise ValueError(f"{name} holds {number}, which is no finite number")


def check_lengths(**lists: Sequence[object] | None) -> None:
    """Refuse lists that are empty, or not as long as the first.

    Raises:
        ValueError: naming the list.
    """
    lengths = {name: len(values) for name, values in lists.items() if values is not None}
    (first, expected), *others = lengths.items()
    if expected == 0:
        raise ValueError(f"{first} is empty; a mean over nothing is undefined")
    for name, length in others:
        if length != expected:
            raise ValueError(f"{name} has {length:,} items, {first} has {expected:,}")


def check_range(name: str, numbers: Sequence[float], *, low: float | None = None, high: float | None = None) -> None:
    """Refuse numbers that are not finite, sum to none, or lie outside ``low`` and ``high``.

    Raises:
        ValueError: naming the number.
    """
    if not math.isfinite(sum(numbers)):
        check_finite(name, numbers)
        raise ValueError(f"{name} sum to more than any float64")
    if low is not None and min(numbers) < low:
        raise ValueError(f"{name} holds {min(numbers)}, less than {low:g}")
    if high is not None and max(numbers) > high:
        raise ValueError(f"{name} holds {max(numbers)}, more than {high:g}")
