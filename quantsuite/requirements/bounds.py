"""What a row requires of a number: ``at most 0.002 ln PPL``, ``at least 60 %``, ``at most the margin``."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal

from quantsuite.intervals import Interval
from quantsuite.metrics import Metric
from quantsuite.statistics import items_to_decide, verdict

Status = Literal["met", "missed", "undecided"]
Quantity = Literal["loss", "difference", "value"]
"""The loss against other records, signed so that positive is worse; its size either way; a record's own value."""
MARGIN = "the margin"
_BOUND = re.compile(rf"(at most|at least) (?:({MARGIN})|([-+]?\d*\.?\d+(?:e[-+]?\d+)?) ?(\S.*))")
_EXAMPLE = "'at most 0.002 ln PPL', 'at least 60 %' or 'at most the margin'"


@dataclass(frozen=True, kw_only=True)
class Bound:
    """An end of what is required, as it is written.

    Args:
        side: ``at most`` or ``at least``.
        size: in the unit; ``None`` stands for the margin of the run.
        unit: as reports show it, such as ``points``.
    """

    side: Literal["at most", "at least"]
    size: float | None
    unit: str = ""

    def __str__(self) -> str:
        size = MARGIN if self.size is None else f"{self.size:g} {self.unit}"
        return f"{self.side} {size}"

    def is_of(self, metric: Metric, quantity: Quantity) -> bool:
        """Whether a metric's quantity has this unit; a margin is of every metric with a paired comparison."""
        if self.size is None:
            return metric.is_paired
        return (quantity == "value" or metric.is_paired) and self.unit in spellings(metric, quantity)

    def of(self, metric: Metric, quantity: Quantity, margin: float) -> float:
        """The bound in the metric's own unit, before its scale."""
        if self.size is None:
            return margin
        scale = metric.scale
        return self.size / (scale.factor if quantity == "value" else scale.change_factor)


def spellings(metric: Metric, quantity: Quantity) -> list[str]:
    """How the unit of a metric's quantity may be written; the first is its own."""
    unit = (metric.scale.sign or metric.unit) if quantity == "value" else metric.scale.change_unit
    return [unit, unit.removesuffix("s")]


def parse_bounds(text: str) -> tuple[Bound, ...]:
    """One bound, or two joined by ``and``.

    Raises:
        ValueError: if it is none, with an example.
    """
    found = []
    for part in re.split(r"\s+and\s+", " ".join(text.split())):
        match = _BOUND.fullmatch(part)
        if match is None:
            raise ValueError(f"{text!r} is no bound; write for example {_EXAMPLE}")
        size = None if match[2] else float(match[3])
        if size is not None and not math.isfinite(size):
            raise ValueError(f"{text!r} holds for everything: {match[3]} is more than any number; write a smaller one")
        found.append(Bound(side=match[1], size=size, unit=match[4] or ""))
    if len({bound.side for bound in found}) < len(found):
        raise ValueError(f"{text!r} says {found[0].side!r} twice; keep one")
    sizes = {bound.side: bound.size for bound in found if bound.size is not None}
    alike = len({bound.unit.removesuffix("s") for bound in found}) == 1
    if alike and len(sizes) == 2 and sizes["at least"] > sizes["at most"]:
        raise ValueError(
            f"{text!r} holds for nothing: {sizes['at least']:g} is more than {sizes['at most']:g}; exchange them"
        )
    return tuple(found)


def judge(interval: Interval, side: str, size: float, items: int) -> tuple[Status, int | None]:
    """Where an interval lies against a bound, and about how many items would decide if it does not say.

    Args:
        interval: of the quantity.
        side: ``at most`` or ``at least``.
        size: of the bound, in the interval's unit.
        items: that the interval is of.
    """
    if side == "at least":
        interval = Interval(estimate=-interval.estimate, low=-interval.high, high=-interval.low)
        size = -size
    found: dict[str, Status] = {"equivalent or better": "met", "worse": "missed", "undecided": "undecided"}
    return found[verdict(interval, size)], items_to_decide(interval, size, items)
