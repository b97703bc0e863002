"""The one result schema: every number that leaves the suite is a record in a run file."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

import msgspec

SCHEMA_VERSION = 1

Outcome = Literal["passed", "failed", "error", "skipped", "xfailed", "unsupported"]
Direction = Literal["lower", "higher"]


class RecordError(ValueError):
    """A run file that cannot be read, or records that contradict each other."""


class SchemeLabel(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A scheme's name with what a report sorts it by.

    ``format`` and ``granularity`` are those of the weight, ``None`` for the reference; ``order``
    is its place in the run; ``alias`` is another name that users know it by.
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


class CheckRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One property of one contestant under a scheme, or the reason why it was not tried.

    ``tightness`` is the largest error as a fraction of its proven bound, 0 where the result is exact, ``None``
    if the check did not finish.  ``version`` is that of the checks.  ``environment.dtype`` is that of the inputs.
    """

    test: str
    outcome: Outcome
    contestant: str
    operation: str
    scheme: str
    property: str
    version: int
    environment: Environment
    tightness: float | None = None
    details: dict[str, float] = {}
    reason: str | None = None
    seconds: float = 0.0
    created: str = ""


class Run(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A run file; ``checks`` is absent where none ran, so that readers of records alone read the rest."""

    schema_version: int
    records: list[Record]
    checks: list[CheckRecord] = []


def read_run(path: Path) -> Run:
    """Read a run file.

    Raises:
        RecordError: if the file is missing, is not a run file, or has another schema version.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise RecordError(f"{path}: {error.strerror}; write it with pytest tests_accuracy --output {path}") from error
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


def read_runs(paths: Iterable[Path]) -> list[Record]:
    """The records of several run files; of a cell that stands in several, the last.

    Raises:
        RecordError: as :func:`read_run`, or if no record was found.
    """
    paths = list(paths)
    cells = {record.cell: record for path in paths for record in read_run(path).records}
    if not cells:
        raise RecordError(f"no records in {', '.join(map(str, paths)) or 'no files'}; run pytest tests_accuracy first")
    return list(cells.values())


def write_run(path: Path, records: Sequence[Record], checks: Sequence[CheckRecord] = ()) -> None:
    """Replace a run file at once, so that an interruption leaves the old one or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    run = Run(schema_version=SCHEMA_VERSION, records=list(records), checks=list(checks))
    partial.write_bytes(msgspec.json.encode(run) + b"\n")
    os.replace(partial, path)
