"""Run files of older schema versions as files of this one, without loss."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from quantsuite.lines import result_of
from quantsuite.metrics import MetricError
from quantsuite.reading import ContentError, decode_lines, read_bytes, verify, without_unfinished_line
from quantsuite.records import RecordError, Result, Run
from quantsuite.runfile import RunFile

_KINDS = {"records": "cell", "properties": "property", "errors": "error"}
"""Lists of a file of version 1, and what stands in them."""


def convert(old: Sequence[Path], new: Path) -> int:
    """Write the results of run files of any version, one file after the other, as a new run file.

    Of several of one key all are written, in their order, and the last counts, as in any run file.

    Returns:
        The number of results that count.

    Raises:
        RecordError: if the new file exists, or one cannot be read or written.
    """
    if new.exists():
        raise RecordError(f"{new} exists; name a new file")
    results = [result for path in old for result in read_any(path)]
    file = RunFile(new, option="NEW")
    for lines in _without_repetition(results):
        file.append(lines)
    return len(Run.of(results).results)


def _without_repetition(results: Sequence[Result]) -> Iterator[list[Result]]:
    """The results in their order, cut before each that would repeat a key, since of one call the last is written."""
    lines: list[Result] = []
    keys: set[object] = set()
    for result in results:
        if (type(result), result.key) in keys:
            yield lines
            lines, keys = [], set()
        lines.append(result)
        keys.add((type(result), result.key))
    yield lines


def read_any(path: Path) -> list[Result]:
    """The results of a run file of this version or an older one.

    Raises:
        RecordError: as :func:`~quantsuite.reading.read_run`.
    """
    data = read_bytes(path, purpose="report")
    try:
        old = msgspec.json.decode(data, type=_Version1)
    except (msgspec.MsgspecError, RecursionError):  # Several lines, or another version, or no run file.
        return decode_lines(path, without_unfinished_line(data), purpose="report")
    try:
        fields = [_now(each, kind) for name, kind in _KINDS.items() for each in getattr(old, name)]
        return [verify(result_of(each)) for each in fields]
    except MetricError as error:
        raise ContentError(f"{path}: {error}") from error
    except (ValueError, ArithmeticError) as error:
        raise ContentError(f"{path} is not a run file: {error}; restore it from a copy") from error


class _Version1(msgspec.Struct):
    schema_version: Literal[1]
    records: list[dict[str, Any]] = []
    properties: list[dict[str, Any]] = []
    errors: list[dict[str, Any]] = []


class _Metric(msgspec.Struct):
    name: str
    version: int
    unit: str

    @property
    def now(self) -> str:
        """The metric's name; of perplexities those of documents are one of their own."""
        if self.unit == "perplexity" and self.name.endswith("/document"):
            return "document perplexity"
        return "divergence" if self.unit == "nats" else self.unit


class _Scheme(msgspec.Struct):
    name: str


class _Subject(msgspec.Struct):
    engine: str
    scheme: _Scheme


class _Record(msgspec.Struct):
    metric: _Metric
    subject: _Subject


def _now(fields: dict[str, Any], kind: str) -> dict[str, Any]:
    """A result's fields under the names that they have now."""
    if kind != "cell":
        return {**fields, "type": kind}
    old = msgspec.convert(fields, _Record)
    engine, _, head = old.subject.engine.partition("+")
    subject = {**fields["subject"], "scheme": old.subject.scheme.name, "engine": engine, "head": head == "head"}
    task = {"name": old.metric.name, "version": old.metric.version, "metric": old.metric.now}
    return {**fields, "type": kind, "task": task, "subject": subject}
