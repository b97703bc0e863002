"""What a metric is: which items it takes, and everything that is said of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

from quantsuite.intervals import Change, Interval
from quantsuite.metrics.estimators import Estimator, Mean
from quantsuite.metrics.scale import Scale

Direction = Literal["lower", "higher"]


@runtime_checkable
class Items(Protocol):
    """Outcomes item by item, a :class:`msgspec.Struct`."""

    def __len__(self) -> int: ...


@dataclass(frozen=True, kw_only=True)
class Margin:
    """The largest loss that counts as none, in the unit of a change before its scale.

    Args:
        default: unless an option says otherwise.
        option: the family of metrics that ``--OPTION-margin`` sets, if there is such an option.
    """

    default: float
    option: str = ""


@dataclass(frozen=True, kw_only=True)
class InWords:
    """A value that is a count of all that there is, so that an interval would say nothing.

    Args:
        value: such as ``21 of 21``.
        remark: what else is to be known of the items, in short.
        faults: each of them.
    """

    value: str
    remark: str = ""
    faults: tuple[str, ...] = ()


def _no_details(items: Any, given: Mapping[str, float]) -> dict[str, float]:
    return {}


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A number of the outcomes of items, with its interval, its comparison and how it is shown.

    Args:
        name: by which tasks and records name it.
        items: the type of its items, a :class:`msgspec.Struct` with a length.
        outcomes: one number an item; booleans for a :class:`~quantsuite.metrics.estimators.Proportion`.
        unit: of the value, as a column head.
        better: which values are better.
        noun: what items are called, in the plural.
        scale: how values and changes are written.
        margin: the loss that counts as none; ``None`` if two of its values have no paired comparison.
        estimator: what the outcomes are summed up to.
        units: that the value is a mean over, of each item; one each unless given.
        details: further numbers of the items; ``given`` holds those that are known or were recorded, for what the
            items do not tell, such as a text's bytes.
        detail_names: heads of the details in a table, where the name itself will not do.
        signed: details, or ``value``, that are means of terms of both signs, and the largest size of a term.
        in_words: the value of items in words, where that is how it is shown, without an interval.
        groups: the group of each item, for a table of values by group.
        counts_dataset: whether its items are those that its dataset counts.
        of_reference: whether each value is a distance from the reference already.  Its change from the reference's
            own, which is the noise floor, is no loss; of two runs either direction tells that they differ.

    Raises:
        ValueError: if a name is missing or is a path's, or the direction or the margin is none.
    """

    name: str
    items: type[Any]
    outcomes: Callable[[Any], Sequence[float]]
    unit: str
    better: Direction
    scale: Scale
    noun: str = "items"
    margin: Margin | None = None
    estimator: Estimator = field(default_factory=Mean)
    units: Callable[[Any], Sequence[float]] = field(default=lambda items: [1] * len(items))
    details: Callable[[Any, Mapping[str, float]], dict[str, float]] = _no_details
    detail_names: Mapping[str, str] = field(default_factory=dict)
    signed: Mapping[str, float] = field(default_factory=dict)
    in_words: Callable[[Any], InWords] | None = None
    groups: Callable[[Any], Sequence[str]] | None = None
    counts_dataset: bool = True
    of_reference: bool = False

    def __post_init__(self) -> None:
        if not self.name.strip() or not self.name.isprintable() or {":", "=", "/"} & {*self.name}:
            raise ValueError(f"a metric is named {self.name!r}; use printable letters without : = and /")
        if self.better not in ("lower", "higher"):
            raise ValueError(f"{self.name} says that {self.better!r} is better; use 'lower' or 'higher'")
        if self.margin is not None and not 0 <= self.margin.default < math.inf:
            raise ValueError(f"the margin of {self.name} is {self.margin.default}; use a number from 0")

    @property
    def is_paired(self) -> bool:
        """Whether two of its values on the same items are compared item by item."""
        return self.margin is not None

    @property
    def heading(self) -> str:
        """The unit as a column head."""
        return f"{self.unit}, {self.scale.sign}" if self.scale.sign and self.in_words is None else self.unit

    def outcomes_of(self, items: Any) -> Sequence[float]:
        """One number an item.

        Raises:
            ValueError: naming the metric, if it gives another number of them, or none.
        """
        try:
            outcomes = self.outcomes(items)
            count = len(outcomes)
        except Exception as error:
            reason = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
            raise ValueError(f"the metric {self.name} gives no outcomes: {reason}") from error
        if count != len(items):
            raise ValueError(f"the metric {self.name} gives {count:,} outcomes of {len(items):,} items; give one each")
        return outcomes

    def value(self, items: Any) -> float:
        """Raises ValueError if the items give none, or it is not finite."""
        try:
            value = self.estimator.value(self.outcomes_of(items), self.units(items))
        except (TypeError, ZeroDivisionError) as error:
            raise ValueError(f"the metric {self.name} gives no value: {type(error).__name__}: {error}") from error
        if not math.isfinite(value):
            raise ValueError(f"the metric {self.name} gives the value {value}; its outcomes and units must be finite")
        return value

    def interval(self, items: Any) -> Interval:
        """The value with its interval, which is unbounded if the items are too few.

        Raises:
            ValueError: if there are no items, or an end is larger than any float64.
        """
        return self.estimator.interval(self.outcomes_of(items), self.units(items))

    def compare(self, reference: Any, candidate: Any) -> Change:
        """Candidate minus reference on the same items.

        Raises:
            ValueError: if the metric has no paired comparison, or the items cannot be paired.
        """
        return change(self, reference, self, candidate)


def change(reference_metric: Metric, reference: Any, metric: Metric, candidate: Any) -> Change:
    """Candidate minus reference on the same items, each by a metric of its own.

    Raises:
        ValueError: if a metric has no paired comparison, the metrics are of different kinds, or the items differ in
            number or units.
    """
    for each in (reference_metric, metric):
        if not each.is_paired:
            raise ValueError(f"{each.name} has no paired comparison")
    if len(reference) != len(candidate) or not all(
        isinstance(items, each.items) for each, items in ((reference_metric, reference), (metric, candidate))
    ):
        raise ValueError(
            f"{len(reference)} {type(reference).__name__} cannot be paired with "
            f"{len(candidate)} {type(candidate).__name__}; measure both on the same items"
        )
    if _kind(reference_metric) != _kind(metric):
        raise ValueError(f"{reference_metric.name} and {metric.name} are of different units; compare what has the same")
    units = list(reference_metric.units(reference))
    if units != list(metric.units(candidate)):
        raise ValueError("the items have different numbers of units; measure both with the same tokenizer")
    return metric.estimator.change(reference_metric.outcomes_of(reference), metric.outcomes_of(candidate), units)


def _kind(metric: Metric) -> tuple[object, ...]:
    return metric.estimator, metric.better, metric.scale.change_unit, metric.scale.change_factor


def disagreement(
    metric: Metric, items: Any, value: float, details: Mapping[str, float]
) -> tuple[str, float, float] | None:
    """The first number that its items do not give: its name, the number, and what the items give.

    A sum of n terms carries up to n roundings of 2**-53 (Python 3.12 adds with compensation, 3.11 without), and
    the platform's exp and log one or two ulp.  The exponential of such a sum carries them times the exponent.  A mean
    of both signs carries them relative to its terms, whose size the metric knows.

    Raises:
        ValueError: if the items give no value or details.
        ArithmeticError: if the details are of no text that there is.
    """
    roundings = (len(items) + 8) * 2**-52
    expected = {"value": metric.value(items), **metric.details(items, details)}
    for name, given in {"value": value, **details}.items():
        if name not in expected:
            raise ValueError(f"no recipe gives a detail {name!r}")
        found = expected[name]
        relative = roundings * max(1.0, abs(math.log(abs(found)))) if found else 0.0
        if not math.isclose(given, found, rel_tol=relative, abs_tol=roundings * metric.signed.get(name, 0.0)):
            return name, given, found
    return None
