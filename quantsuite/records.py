"""The one result schema: every number that leaves the suite is a record in a run file."""

from __future__ import annotations

from typing import Literal

import msgspec

from quantsuite.items import Choices as Choices
from quantsuite.items import Divergences, Items, check_finite
from quantsuite.items import Perplexities as Perplexities
from quantsuite.metrics import Metric as ItemsMetric
from quantsuite.metrics import metric

SCHEMA_VERSION = 1
RECORD, PROPERTY, ERROR = "quantsuite_record", "quantsuite_property", "quantsuite_error"
"""Names under which a test's report carries what it measured."""

Outcome = Literal["passed", "failed", "error", "skipped", "xfailed", "unsupported"]
Direction = Literal["lower", "higher"]
Finding = Literal["exact", "within bound", "fails", "known failure", "not supported", "not applicable"]


class RecordError(ValueError):
    """A run file that cannot be read or written, or records that contradict each other."""


class SchemeLabel(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A scheme's name with what a report sorts it by.

    ``format`` and ``granularity`` are those of the weight, ``None`` for the reference; ``alias`` is
    another name that users know it by.
    """

    name: str
    format: str | None = None
    granularity: str | None = None
    alias: str | None = None


class Subject(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What was measured: a model (``sha256`` of its weights and configuration) in an engine."""

    model: str
    model_sha256: str
    engine: str
    scheme: SchemeLabel
    execution: str | None = None

    @property
    def is_reference(self) -> bool:
        return self.scheme.name == "bf16"

    @property
    def label(self) -> str:
        """The scheme and its execution, as test ids and tables show them."""
        return self.scheme.name if self.execution is None else f"{self.scheme.name}-{self.execution}"


class Dataset(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The items that were scored: ``sha256`` is over the items themselves, in order."""

    name: str
    sha256: str
    items: int
    limit: int
    seed: int

    def __post_init__(self) -> None:
        if self.items < 1 or self.limit < 0 or (self.limit and self.items > self.limit):
            raise ValueError(f"a dataset has {self.items:,} items of a limit of {self.limit:,}")

    def __str__(self) -> str:
        return f"{self.items:,} items of {self.name} (sha256 {self.sha256[:12]}, limit {self.limit}, seed {self.seed})"


class Environment(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where and with what: ``device`` is ``cpu`` or the accelerator's name."""

    device: str
    dtype: str
    versions: dict[str, str]
    hardware: str
    threads: int

    def __post_init__(self) -> None:
        if not 1 <= self.threads < 2**31:
            raise ValueError("threads are less than 1, or more than any machine runs")


class Metric(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A recipe of its own name with its version, unit and direction."""

    name: str
    version: int
    unit: str
    better: Direction

    def __post_init__(self) -> None:
        if self.version < 1:
            raise ValueError(f"the version of {self.name} is {self.version}, less than 1")


class Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One measured cell, or the reason why there is none.

    ``details`` holds further numbers that the recipe reports, each named with its unit; ``value`` and those of them
    that the items give derive from the items.

    Raises:
        ValueError: if one of value and items is missing, both are of a passed record, the dataset has another number
            of items, or a number is not finite.
    """

    test: str
    outcome: Outcome
    metric: Metric
    subject: Subject
    environment: Environment
    dataset: Dataset | None = None
    value: float | None = None
    details: dict[str, float] = {}
    items: Items | None = None
    reason: str | None = None
    seconds: float = 0.0
    weight_bytes: int | None = None
    unquantized: float | None = None
    created: str = ""

    def __post_init__(self) -> None:
        if self.outcome == "passed" and self.items is None:
            raise ValueError("a record that passed has no items")
        if (self.value is None) != (self.items is None):
            raise ValueError(f"a record has {'items' if self.value is None else 'a value'} but not the other")
        # The items of a divergence are tokens, those of its dataset windows or documents.
        expected = None if self.dataset is None or isinstance(self.items, Divergences) else self.dataset.items
        if self.items is not None and expected is not None and len(self.items) != expected:
            raise ValueError(f"a record has {len(self.items):,} items, its dataset {expected:,}")
        check_finite("value, seconds or details", [self.value or 0.0, self.seconds, *self.details.values()])
        if self.seconds < 0:
            raise ValueError(f"seconds are {self.seconds}, less than 0")
        if self.weight_bytes is not None and not 1 <= self.weight_bytes < 2**63:
            raise ValueError("weight_bytes are less than 1, or more than any memory holds")
        if self.unquantized is not None and not 0 <= self.unquantized <= 1:
            raise ValueError(f"unquantized is {self.unquantized}, not a share from 0 to 1")
        if self.items is not None and (self.metric.better == "higher") != isinstance(self.items, Choices):
            raise ValueError(f"{self.metric.name} says that {self.metric.better} is better, its items do not")

    @property
    def cell(self) -> tuple[str, str, str, str]:
        """What a report's cell, and a baseline's, is looked up by."""
        return (self.subject.model, self.metric.name, self.subject.scheme.name, self.subject.execution or "")

    @property
    def conditions(self) -> dict[str, object]:
        """What must be equal for two records' values to be compared, beside what is under test."""
        versions = self.environment.versions
        return {
            "metric version": self.metric.version,
            "dataset": self.dataset,
            "engine": self.subject.engine,
            "device": self.environment.device,
            "dtype": self.environment.dtype,
            "torch": ".".join(versions.get("torch", "").split("+")[0].split(".")[:2]),
        }

    @property
    def measured(self) -> bool:
        return self.value is not None and self.items is not None

    @property
    def identity(self) -> tuple[object, ...]:
        """What is equal of two records that measure the same: cell, weights, and conditions."""
        return (*self.cell, self.subject.model_sha256, *self.conditions.values())


class PropertyResult(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one check said of one contestant under one scheme.

    ``factor`` is the largest error that was seen over its bound, 0 where bits are decided; ``reason`` says
    why the check failed or did not run.  ``environment.dtype`` is that of the inputs; ``details`` holds further
    numbers that were measured, such as an accumulator's ``bits``.
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


class ErrorPoint(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
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


class Run(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A run file: measured cells of models, checked properties of contestants, errors of random tensors."""

    schema_version: int = SCHEMA_VERSION
    records: list[Record] = []
    properties: list[PropertyResult] = []
    errors: list[ErrorPoint] = []


def metric_of(record: Record) -> ItemsMetric:
    """What makes a value of a record's items.

    Raises:
        ValueError: if there is no such metric.
    """
    label = record.metric
    if label.unit == "perplexity" and label.name.endswith("/document"):
        return metric("document perplexity")
    return metric("divergence" if label.unit == "nats" else label.unit)


def differences(candidate: Record, baseline: Record) -> list[str]:
    """The conditions in which two records differ, each with both values."""
    ours, theirs = candidate.conditions, baseline.conditions
    return [f"{name} is {ours[name]}, not {theirs[name]}" for name in ours if ours[name] != theirs[name]]


def differences_with_model(candidate: Record, baseline: Record) -> list[str]:
    """As :func:`differences`, and the hash of the model."""
    ours, theirs = (record.subject.model_sha256[:12] or "unknown" for record in (candidate, baseline))
    return differences(candidate, baseline) + ([f"model sha256 is {ours}, not {theirs}"] if ours != theirs else [])
