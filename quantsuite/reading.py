"""Reading run files, with every number that derives from items computed anew."""

from __future__ import annotations

import re
import stat
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from quantsuite.items import disagreement
from quantsuite.records import (
    SCHEMA_VERSION,
    ErrorPoint,
    PropertyResult,
    Record,
    RecordError,
    Run,
    differences_with_model,
    metric_of,
)

Purpose = Literal["report", "output", "baseline"]
"""What a run file is read for: an argument of a command, a run's output that is continued, or a reviewed baseline."""

_MISSING: dict[Purpose, str] = {
    "report": "pytest tests_accuracy writes run files",
    "output": "repeat the command",
    "baseline": "copy a reviewed run file of the same command there",
}
_DAMAGED: dict[Purpose, str] = {
    "report": "restore it from a copy, or repeat the run that wrote it",
    "output": "move it away, or repeat the command with --fresh",
    "baseline": "restore it from version control",
}
_OLDER: dict[Purpose, str] = {
    "report": "run it again",
    "output": "move it away, or run it again with --fresh",
    "baseline": "run it again and review it",
}


class ContentError(RecordError):
    """A file that was read and is no run file, or not an honest one."""


class _Header(msgspec.Struct):
    schema_version: int


def read_run(path: Path, *, purpose: Purpose = "report") -> Run:
    """Read a run file.

    Raises:
        RecordError: if there is no such file; and :class:`ContentError` if it is no run file, has another schema
            version, holds a cell twice, or a number that its items do not give.
    """
    return decode_run(path, read_bytes(path, purpose=purpose), purpose=purpose)


def read_bytes(path: Path, *, purpose: Purpose) -> bytes:
    """What a regular file holds; a pipe is not waited for.

    Raises:
        RecordError: if it is none, or cannot be read.
    """
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            what = "a directory" if stat.S_ISDIR(mode) else "no regular file"
            raise RecordError(f"{path} is {what}; name a run file")
        return path.read_bytes()
    except FileNotFoundError as error:
        raise RecordError(f"{path}: {error.strerror}; {_MISSING[purpose]}") from error
    except OSError as error:
        raise RecordError(f"{path}: {error.strerror}; name a run file that can be read") from error


def decode_run(path: Path, data: bytes, *, purpose: Purpose) -> Run:
    """The run in a run file's bytes.

    Raises:
        ContentError: as :func:`read_run`.
    """
    _check_version(path, data, purpose)
    try:
        run = msgspec.json.decode(data, type=Run)
    except (msgspec.ValidationError, OverflowError) as error:
        raise ContentError(f"{path} is not a run file: {error}; {_DAMAGED[purpose]}") from error
    if problem := _contradiction(run.records) or _twin([*run.properties, *run.errors]):
        raise ContentError(f"{path}: {problem}; {_DAMAGED[purpose]}")
    return run


def _check_version(path: Path, data: bytes, purpose: Purpose) -> None:
    try:
        text_problem = _text_problem(data)
        version = None if text_problem else msgspec.json.decode(data, type=_Header).schema_version
    except msgspec.MsgspecError as error:
        text_problem = _syntax_problem(data, str(error))
    if text_problem:
        raise ContentError(f"{path} is not a run file: {text_problem}; {_DAMAGED[purpose]}")
    if version != SCHEMA_VERSION:
        way_out = "upgrade quantsuite" if version > SCHEMA_VERSION else _OLDER[purpose]
        raise ContentError(f"{path} has schema version {version}, this quantsuite reads {SCHEMA_VERSION}; {way_out}")


def _text_problem(data: bytes) -> str | None:
    if not data.strip():
        return "it is empty"
    if b"\0" in data:
        return f"binary data, with a zero at byte {data.index(0):,}"
    try:
        data.decode()
    except UnicodeDecodeError as error:
        return f"not UTF-8 at byte {error.start:,}"
    return None


def _syntax_problem(data: bytes, message: str) -> str:
    """msgspec's message, with the word for what JSON has no literal for."""
    if "truncated" in message:
        return f"it is truncated after {len(data):,} bytes"
    place = re.search(r"\(byte (\d+)\)", message)
    literal = place and re.match(rb"NaN|-?Infinity|nan|-?inf", data[max(0, int(place[1]) - 1) :].lstrip(b" :,["))
    return f"{literal[0].decode()} is no number of JSON (byte {place[1]})" if literal and place else message


def _contradiction(records: Iterable[Record]) -> str | None:
    """The first record that stands twice or says what its items do not give."""
    seen = set()
    for record in records:
        cell = f"{record.subject.model} {record.metric.name} {record.subject.label}"
        if record.identity in seen:
            return f"{cell} stands in it twice"
        seen.add(record.identity)
        if record.items is None or record.value is None:
            continue
        try:
            found = disagreement(metric_of(record), record.items, record.value, record.details)
        except (ValueError, ArithmeticError) as error:
            return f"{cell}: {error}"
        if found is not None:
            name, given, expected = found
            return f"{cell}: {name} is {given!r}, its items give {expected!r}"
    return None


def _twin(results: Sequence[PropertyResult | ErrorPoint]) -> str | None:
    """The first result that stands twice."""
    repeated = (key for key, count in Counter(result.key for result in results).items() if count > 1)
    key = next(repeated, None)
    return key and f"{', '.join(map(str, key))} stands in it twice"


def read_runs(paths: Iterable[Path]) -> Run:
    """What several run files hold together; of what was measured several times alike, the last.

    Raises:
        RecordError: as :func:`read_run`, if no record was found, or if a cell was measured under
            different conditions or on different weights.
    """
    paths = list(paths)
    cells: dict[tuple[str, str, str, str], Record] = {}
    properties, errors = {}, {}
    for path in paths:
        run = read_run(path)
        properties |= {result.key: result for result in run.properties}
        errors |= {point.key: point for point in run.errors}
        for record in run.records:
            other = cells.get(record.cell)
            if other is not None and record.measured and other.measured:
                _check_alike(path, record, other)
            cells[record.cell] = record
    together = Run(records=list(cells.values()), properties=list(properties.values()), errors=list(errors.values()))
    if together == Run():
        raise RecordError(f"no records in {', '.join(map(str, paths)) or 'no files'}; run pytest tests_accuracy first")
    return together


def _check_alike(path: Path, record: Record, other: Record) -> None:
    if different := differences_with_model(record, other):
        raise RecordError(
            f"{path}: {record.subject.model} {record.metric.name} {record.subject.label} was measured before under "
            f"other conditions: {'; '.join(different)}. Make a report of each run"
        )
