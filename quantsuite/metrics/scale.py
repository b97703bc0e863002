"""How a metric's numbers are written."""

from __future__ import annotations

from dataclasses import dataclass

from quantsuite.intervals import Interval

MISSING = "-"


@dataclass(frozen=True, kw_only=True)
class Scale:
    """Factors, decimals and units of a metric's value and of its change.

    Args:
        factor: that a value is multiplied with, shown with ``decimals``.
        change_factor: that a change is multiplied with, shown with ``change_decimals`` in ``change_unit``.
        change_name: of the change's unit where no column head says what it is of, such as ``accuracy points``;
            without one it is the unit.
        sign: behind a value, such as ``%``.
    """

    factor: float = 1
    decimals: int = 4
    change_factor: float = 1
    change_decimals: int = 5
    change_unit: str
    change_name: str = ""
    sign: str = ""

    def value(self, value: float | None) -> str:
        return MISSING if value is None else f"{value * self.factor:.{self.decimals}f}"

    def interval(self, interval: Interval | None) -> str:
        if interval is None or not interval.is_bounded:
            return MISSING
        return f"[{self.value(interval.low)}, {self.value(interval.high)}]"

    def change(self, value: float) -> str:
        text = f"{value * self.change_factor:+.{self.change_decimals}f}"
        return text.replace("-", "+") if float(text) == 0 else text

    def change_interval(self, interval: Interval) -> str:
        """The estimate with its interval, if it has bounds."""
        if not interval.is_bounded:
            return f"{self.change(interval.estimate)} (no interval)"
        low, high = self.change(interval.low), self.change(interval.high)
        return f"{self.change(interval.estimate)} [{low}, {high}]"

    def quantity(self, value: float) -> str:
        """A size without sign, with its unit."""
        return f"{abs(value) * self.change_factor:.{self.change_decimals}f} {self.change_unit}"

    def margin(self, value: float) -> str:
        size = f"{value * self.change_factor:g}"
        return f"{size} {self.change_unit.removesuffix('s') if size == '1' else self.change_unit}"


def percentage(unit: str) -> Scale:
    """The scale of a share, whose changes are points."""
    return Scale(
        factor=100,
        decimals=1,
        change_factor=100,
        change_decimals=2,
        change_unit="points",
        change_name=f"{unit} points",
        sign="%",
    )
