"""The one result schema: every number that leaves the suite is a record in a run file."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

import msgspec

SCHEMA_VERSION = 1
RECORD, PROPERTY, ERROR = "quantsuite_record", "quantsuite_property", "quantsuite_error"
"""Names under which a test's report carries what it measured."""

Outcome = Literal["passed", "failed", "error", "skipped", "xfailed", "unsupported"]
Direction = Literal["lower", "higher"]
Finding = Literal["exact", "within bound", "fails", "known failure", "not supported", "not applicable"]


class RecordError(ValueError):
    """A run file that cannot be read, or records that contradict each other."""


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

    def __str__(self) -> str:
        return f"{self.items:,} items of {self.name} (sha256 {self.sha256[:12]}, limit {self.limit}, seed {self.seed})"


class Environment(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where and with what: ``device`` is ``cpu`` or the accelerator's name."""

    device: str
    dtype: str
    versions: dict[str, str]
    hardware: str
    threads: int


class Perplexities(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="perplexity"):
    """Outcomes of windows or documents: the negative log-likelihood of each, in nats.

    ``units`` is what the mean is over: targets (tokens), words or bytes of each item.
    ``floor_nats``, where the text's entropy is known, is the information of each item.
    """

    nats: list[float]
    tokens: list[int]
    units: list[int]
    floor_nats: list[float] | None = None

    def __len__(self) -> int:
        return len(self.nats)


class Choices(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="choices"):
    """Outcomes of multiple-choice questions; ``-1`` predicted is an answer that could not be read."""

    group: list[str]
    answer: list[int]
    predicted: list[int]
    log_likelihoods: list[list[float]] | None = None

    def __len__(self) -> int:
        return len(self.answer)

    @property
    def correct(self) -> list[bool]:
        return [a == p for a, p in zip(self.answer, self.predicted, strict=True)]


class Divergences(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="divergence"):
    """Drift from the reference, token by token: KL in nats, change of the true token's probability."""

    kl: list[float]
    same_top: list[bool]
    delta_p: list[float]

    def __len__(self) -> int:
        return len(self.kl)


Items = Perplexities | Choices | Divergences


class Metric(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A recipe of its own name with its version, unit and direction."""

    name: str
    version: int
    unit: str
    better: Direction


class Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One measured cell, or the reason why there is none.

    ``details`` holds further numbers that the recipe reports, each named with its unit.
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
    created: str = ""

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

    @property
    def key(self) -> tuple[object, ...]:
        return (self.study, self.quantity, self.scheme, self.x, tuple(self.shape))


class Run(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A run file: measured cells of models, checked properties of contestants, errors of random tensors."""

    schema_version: int = SCHEMA_VERSION
    records: list[Record] = []
    properties: list[PropertyResult] = []
    errors: list[ErrorPoint] = []


def read_run(path: Path) -> Run:
    """Read a run file.

    Raises:
        RecordError: if the file is missing, is not a run file, or has another schema version.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise RecordError(f"{path}: {error.strerror}; pytest tests_accuracy writes run files") from error
    try:
        header = msgspec.json.decode(data, type=dict)
        version = header.get("schema_version")
        if version != SCHEMA_VERSION:
            raise RecordError(
                f"{path} has schema version {version}, this quantsuite reads {SCHEMA_VERSION}; run it again"
            )
        return msgspec.convert(header, type=Run)
    except msgspec.MsgspecError as error:
        raise RecordError(f"{path} is not a run file: {error}; run it again with --fresh") from error


def read_runs(paths: Iterable[Path]) -> Run:
    """What several run files hold together; of what was measured several times alike, the last.

    Raises:
        RecordError: as :func:`read_run`, if no record was found, or if a cell was measured under
            different conditions or on different weights.
    """
    paths = list(paths)
    cells: dict[tuple[str, str, str, str], Record] = {}
    properties: dict[tuple[str, ...], PropertyResult] = {}
    errors: dict[tuple[object, ...], ErrorPoint] = {}
    for path in paths:
        run = read_run(path)
        properties |= {result.key: result for result in run.properties}
        errors |= {point.key: point for point in run.errors}
        for record in run.records:
            other = cells.get(record.cell)
            if other is not None and record.measured and other.measured:
                _check_alike(path, record, other)
            cells[record.cell] = record
    if not (cells or properties or errors):
        raise RecordError(f"no records in {', '.join(map(str, paths)) or 'no files'}; run pytest tests_accuracy first")
    return Run(records=list(cells.values()), properties=list(properties.values()), errors=list(errors.values()))


def differences(candidate: Record, baseline: Record) -> list[str]:
    """The conditions in which two records differ, each with both values."""
    ours, theirs = candidate.conditions, baseline.conditions
    return [f"{name} is {ours[name]}, not {theirs[name]}" for name in ours if ours[name] != theirs[name]]


def differences_with_model(candidate: Record, baseline: Record) -> list[str]:
    """As :func:`differences`, and the hash of the model."""
    ours, theirs = (record.subject.model_sha256[:12] or "unknown" for record in (candidate, baseline))
    return differences(candidate, baseline) + ([f"model sha256 is {ours}, not {theirs}"] if ours != theirs else [])


def _check_alike(path: Path, record: Record, other: Record) -> None:
    if different := differences_with_model(record, other):
        raise RecordError(
            f"{path}: {record.subject.model} {record.metric.name} {record.subject.label} was measured before under "
            f"other conditions: {'; '.join(different)}. Make a report of each run"
        )


def write_run(
    path: Path,
    records: Sequence[Record] = (),
    *,
    properties: Sequence[PropertyResult] = (),
    errors: Sequence[ErrorPoint] = (),
) -> None:
    """Replace a run file at once, so that an interruption leaves the old one or the new one."""
    run = Run(records=list(records), properties=list(properties), errors=list(errors))
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_bytes(msgspec.json.encode(run) + b"\n")
    os.replace(partial, path)
