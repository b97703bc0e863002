"""The one result schema: every number that leaves the suite is a record in a run file.

A run file holds a line of JSON for each record, after a header with the version of this schema.  An addition that an
older reader may leave out of account is an optional field, which it ignores; the version is raised with whatever an
older reader could misread.  Files of older versions are converted (``python -m quantsuite convert``), those of newer
ones refused.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import msgspec

from quantsuite.metrics import Items, Metric, check_finite, named_metric
from quantsuite.provenance import Dataset, Environment, Identity, Key, Subject, TaskLabel
from quantsuite.scheme import DTYPES

SCHEMA_VERSION = 2
RESULT = "quantsuite_result"
"""Name under which a test's report carries what it measured, as a line of a run file."""

Outcome = Literal["passed", "failed", "error", "skipped", "xfailed", "unsupported"]
Finding = Literal["exact", "within bound", "fails", "known failure", "not supported", "not applicable"]


class RecordError(ValueError):
    """A run file that cannot be read or written, or records that contradict each other."""


class Record(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="cell"):
    """One measured cell, or the reason why there is none.

    ``details`` holds further numbers that the recipe reports, each named with its unit; ``value`` and those of them
    that the items give derive from the items.

    Raises:
        ValueError: if one of value and items is missing, both are of a passed record, the items are not of the metric,
            the dataset has another number of items, the dtype is none of a model, or a number is not finite.
    """

    task: TaskLabel
    subject: Subject
    outcome: Outcome
    value: float | None = None
    details: dict[str, float] = {}
    reason: str | None = None
    dataset: Dataset | None = None
    environment: Environment
    seconds: float = 0.0
    weight_bytes: int | None = None
    unquantized: float | None = None
    identity: Identity | None = None
    created: str = ""
    test: str
    items: Items | None = None

    def __post_init__(self) -> None:
        if self.outcome == "passed" and self.items is None:
            raise ValueError("a record that passed has no items")
        if (self.value is None) != (self.items is None):
            raise ValueError(f"a record has {'items' if self.value is None else 'a value'} but not the other")
        if self.environment.dtype not in DTYPES:
            raise ValueError(f"the dtype of a model is {self.environment.dtype!r}; use {', '.join(DTYPES)}")
        check_finite("value, seconds or details", [self.value or 0.0, self.seconds, *self.details.values()])
        if self.seconds < 0:
            raise ValueError(f"seconds are {self.seconds}, less than 0")
        if self.weight_bytes is not None and not 1 <= self.weight_bytes < 2**63:
            raise ValueError("weight_bytes are less than 1, or more than any memory holds")
        if self.unquantized is not None and not 0 <= self.unquantized <= 1:
            raise ValueError(f"unquantized is {self.unquantized}, not a share from 0 to 1")
        if self.items is not None:
            self._check_items(self.items)

    def _check_items(self, items: Items) -> None:
        if not isinstance(items, self.metric.items):
            raise ValueError(f"the metric {self.task.metric} is not one of {type(items).__name__}")
        if self.dataset is not None and self.metric.counts_dataset and len(items) != self.dataset.items:
            raise ValueError(f"a record has {len(items):,} items, its dataset {self.dataset.items:,}")

    @property
    def metric(self) -> Metric:
        """What makes a value of the items.

        Raises:
            ValueError: if it is not installed.
        """
        return named_metric(self.task.metric)

    @property
    def key(self) -> Key:
        return Key(
            model=self.subject.model,
            task=self.task.name,
            scheme=self.subject.scheme,
            execution=self.subject.execution or "",
            plan=self.subject.plan,
            engine=self.subject.engine,
            device=self.environment.device,
            dtype=self.environment.dtype,
            head=self.subject.head,
            kernel=self.subject.kernel,
        )

    @property
    def cell(self) -> tuple[str, str, str, str, str]:
        """What of the key is under test; the rest of it says how it was measured."""
        return self.key[:5]

    @property
    def conditions(self) -> dict[str, object]:
        """What must be equal for two records' values to be compared, beside what is under test."""
        versions = self.environment.versions
        return {
            "task version": self.task.version,
            "task file": self.task.sha256[:12],
            "dataset": self.dataset,
            "engine": self.subject.engine,
            "quantized head": self.subject.head,
            "device": self.environment.device,
            "dtype": self.environment.dtype,
            "torch": ".".join(versions.get("torch", "").split("+")[0].split(".")[:2]),
        }

    @property
    def measured(self) -> bool:
        return self.value is not None and self.items is not None

    @property
    def scheme(self) -> str:
        """The scheme as a person reads it: of the reference the dtype that it was measured in."""
        return self.environment.dtype if self.subject.is_reference else self.subject.scheme

    @property
    def label(self) -> str:
        """That of the subject, with the scheme as a person reads it."""
        return self.scheme if self.subject.is_reference else self.subject.label

    @property
    def title(self) -> str:
        """The label with what else tells records of the subject apart."""
        return self.label + self.subject.chosen

    def __str__(self) -> str:
        return f"{self.subject.model} {self.task.name} {self.title}"


class PropertyResult(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="property"):
    """What one check said of one kernel under one scheme.

    ``factor`` is the largest error that was seen over its bound, 0 where bits are decided; ``reason`` says
    why the check failed or did not run.  ``environment.dtype`` is that of the inputs; ``details`` holds further
    numbers that were measured, such as an accumulator's ``bits``.  ``follows`` is the property of hygiene that
    fails too and explains the failure; ``declares`` is in what the kernel says to differ from the defaults, by name;
    ``planted`` the category of a fault that was planted in the kernel to test the checks.
    """

    test: str
    contestant: str
    operation: str
    scheme: str
    property: str
    outcome: Finding
    factor: float | None = None
    reason: str | None = None
    details: dict[str, float] = {}
    version: int = 1
    seed: int = 0
    follows: str = ""
    declares: dict[str, str] = {}
    planted: str = ""
    environment: Environment

    def __post_init__(self) -> None:
        check_finite("factor or details", [self.factor or 0.0, *self.details.values()])
        factor = {"exact": self.factor == 0, "within bound": self.factor is not None and 0 < self.factor <= 1}
        if not factor.get(self.outcome, self.factor is None):
            raise ValueError(f"{self.contestant}, {self.scheme}, {self.property}: {self.outcome} by {self.factor}")
        if self.outcome not in factor and not self.reason:
            raise ValueError(f"{self.contestant}, {self.scheme}, {self.property}: {self.outcome} without a reason")

    @property
    def key(self) -> tuple[str, ...]:
        environment = self.environment
        return (self.contestant, self.operation, self.scheme, self.property, environment.device, environment.dtype)


class ErrorPoint(msgspec.Struct, frozen=True, kw_only=True, tag="error"):
    """One measured error of quantized random tensors, beside its closed form.

    ``study`` names what ``x`` is: a reduced dimension, a group size, an outlier's size.  ``quantity`` is the
    measure of the error, relative to the exact values; ``series`` the line of a plot that the point belongs to.
    ``predicted`` is ``None`` where no closed form is known.
    """

    study: str
    quantity: str
    series: str
    scheme: str
    x: float
    shape: list[int]
    measured: float
    predicted: float | None
    seed: int

    def __post_init__(self) -> None:
        check_finite("x, measured or predicted", [self.x, self.measured, self.predicted or 0.0])
        if min(self.measured, self.predicted or 0.0) < 0:
            raise ValueError(f"{self.study}, {self.scheme}: an error of {self.measured} or {self.predicted} is below 0")

    @property
    def key(self) -> tuple[object, ...]:
        return (self.study, self.quantity, self.scheme, self.x, tuple(self.shape))


Result = Record | PropertyResult | ErrorPoint
"""What a line of a run file holds."""


class Run(msgspec.Struct, kw_only=True):
    """What a run file holds: measured cells of models, checked properties of kernels, errors of random tensors."""

    records: list[Record] = []
    properties: list[PropertyResult] = []
    errors: list[ErrorPoint] = []

    @classmethod
    def of(cls, results: Iterable[Result]) -> Run:
        """The last result of each key."""
        kept = {(type(result), result.key): result for result in results}.values()
        records, properties, errors = (
            [result for result in kept if isinstance(result, kind)] for kind in (Record, PropertyResult, ErrorPoint)
        )
        return cls(records=records, properties=properties, errors=errors)

    @property
    def results(self) -> list[Result]:
        return [*self.records, *self.properties, *self.errors]


def differences(
    candidate: Record, baseline: Record, *, freed: Iterable[str] = (), with_model: bool = False
) -> list[str]:
    """The conditions in which two records differ, each with both values.

    Args:
        candidate: a record.
        baseline: what it is compared with.
        freed: names of conditions that may differ, since they are what is compared.
        with_model: whether the model's hash is a condition too.
    """
    ours, theirs = (
        record.conditions | ({"model sha256": record.subject.model_sha256[:12] or "unknown"} if with_model else {})
        for record in (candidate, baseline)
    )
    names = [name for name in ours if ours[name] != theirs[name] and name not in {*freed}]
    return [f"{name} is {ours[name]}, not {theirs[name]}" for name in names]
