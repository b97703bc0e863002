"""How numbers are written: one scale for each kind of metric."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from quantsuite.records import Metric, Record
from quantsuite.statistics import Interval

MISSING = "-"


@dataclass(frozen=True, kw_only=True)
class Scale:
    """Factors, decimals and units of a metric's value and of its change."""

    factor: float
    decimals: int
    change_factor: float
    change_decimals: int
    change_unit: str

    def value(self, value: float | None) -> str:
        return MISSING if value is None else f"{value * self.factor:.{self.decimals}f}"

    def interval(self, interval: Interval | None) -> str:
        return MISSING if interval is None else f"[{self.value(interval.low)}, {self.value(interval.high)}]"

    def change(self, value: float) -> str:
        text = f"{value * self.change_factor:+.{self.change_decimals}f}"
        return text.replace("-", "+") if float(text) == 0 else text

    def change_interval(self, interval: Interval) -> str:
        """The estimate with its interval."""
        low, high = self.change(interval.low), self.change(interval.high)
        return f"{self.change(interval.estimate)} [{low}, {high}]"

    def quantity(self, value: float) -> str:
        """A size without sign, with its unit."""
        return f"{abs(value) * self.change_factor:.{self.change_decimals}f} {self.change_unit}"

    def margin(self, value: float) -> str:
        size = f"{value * self.change_factor:g}"
        return f"{size} {self.change_unit.removesuffix('s') if size == '1' else self.change_unit}"


ACCURACY = Scale(factor=100, decimals=1, change_factor=100, change_decimals=2, change_unit="points")
PERPLEXITY = Scale(factor=1, decimals=3, change_factor=1, change_decimals=5, change_unit="ln PPL")
DIVERGENCE = Scale(factor=1, decimals=6, change_factor=1, change_decimals=6, change_unit="nats")


def scale_of(metric: Metric) -> Scale:
    """The scale of a metric, by its unit."""
    if metric.unit == "accuracy":
        return ACCURACY
    return PERPLEXITY if metric.unit.endswith("perplexity") else DIVERGENCE


def items_of(metric: Metric) -> str:
    """What the metric's items are called."""
    if metric.unit == "accuracy":
        return "questions"
    return "documents" if metric.name.endswith("/document") else "windows"


def approximately(number: int) -> str:
    """A number of two significant digits."""
    digits = max(0, len(str(number)) - 2)
    return f"{round(number, -digits):,}"


def heading(metric: Metric) -> str:
    """A metric's unit as a column head."""
    scale = scale_of(metric)
    return f"{metric.unit}, %" if scale is ACCURACY else metric.unit


def enumerate_variants(records: Iterable[Record]) -> str:
    """``int8-tensor (simulated, real), fp8-row (real)``."""
    executions: dict[str, list[str]] = {}
    for record in records:
        found = executions.setdefault(record.subject.scheme.name, [])
        if (record.subject.execution or "") not in found:
            found.append(record.subject.execution or "")
    return ", ".join(
        f"{name} ({', '.join(sorted(found, reverse=True))})" if any(found) else name
        for name, found in executions.items()
    )


def joined(parts: Sequence[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return " and ".join(part for part in (", ".join(parts[:-1]), parts[-1]) if part) if parts else ""


def count(number: int, noun: str) -> str:
    """``1 question``, ``1,000 questions``."""
    return f"{number:,} {noun.removesuffix('s') if number == 1 else noun}"


def mebibytes(size: int | None) -> str:
    return MISSING if size is None else f"{size / 2**20:,.2f}"


def percent(ratio: float | None) -> str:
    return MISSING if ratio is None else f"{100 * ratio:.1f} %"


def unquantized_share(record: Record) -> str:
    """What a scheme leaves of a model in its own dtype; empty for the reference."""
    if record.unquantized is None or record.subject.is_reference:
        return ""
    return f"{percent(record.unquantized)} of the parameters (embeddings, norms, biases, routers, head)"
