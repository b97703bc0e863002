"""Reading run files, with every number that derives from items computed anew."""

from __future__ import annotations

import re
import stat
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Literal

import msgspec

from quantsuite.lines import decode_line
from quantsuite.metrics import MetricError, disagreement
from quantsuite.metrics.registry import BUILT_IN
from quantsuite.records import SCHEMA_VERSION, Key, Record, RecordError, Result, Run, differences

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
_CHANGED: dict[Purpose, str] = {
    "report": "restore the metric, or repeat the run, which measures it again",
    "output": "repeat the command with --fresh",
    "baseline": "restore the metric, or measure the baseline again",
}


class ContentError(RecordError):
    """A file that was read and is no run file, or not an honest one."""


class ChangedMetricError(ContentError):
    """A number that a user's metric does not give: it was edited, or the metric was.

    Attributes:
        record: that holds it.
    """

    def __init__(self, message: str, record: Record) -> None:
        super().__init__(message)
        self.record = record


class Header(msgspec.Struct):
    """The first line of a run file."""

    schema_version: int


def read_run(path: Path, *, purpose: Purpose = "report") -> Run:
    """Read a run file; of lines with the same key the last counts.

    A last line that a writer had not finished is left out, but not of a baseline.

    Raises:
        RecordError: if there is no such file; and :class:`ContentError` if it is no run file, has another schema
            version, holds a number that its items do not give, or a record of a metric that is not installed.
    """
    data = read_bytes(path, purpose=purpose)
    if purpose != "baseline":
        data = without_unfinished_line(data)
    if purpose == "output" and not data:
        return Run()
    return Run.of(decode_lines(path, data, purpose=purpose))


def require_finished(paths: Iterable[Path]) -> None:
    """Refuse run files whose last line a writer had not finished.

    Raises:
        RecordError: naming the first, since what was measured there is lost.
    """
    for path in paths:
        data = read_bytes(path, purpose="report")
        if without_unfinished_line(data) != data:
            raise RecordError(
                f"{path}: the last line is not whole, a cell is lost; repeat the run, which goes on there"
            )


def read_bytes(path: Path, *, purpose: Purpose) -> bytes:
    """What a regular file holds; a pipe is not waited for.

    Raises:
        RecordError: if it is none, or cannot be read.
    """
    try:
        require_regular(path)
        return path.read_bytes()
    except FileNotFoundError as error:
        raise RecordError(f"{path}: {error.strerror}; {_MISSING[purpose]}") from error
    except OSError as error:
        raise RecordError(f"{path}: {error.strerror}; name a run file that can be read") from error


def require_regular(path: Path) -> None:
    """Refuse folders, pipes and devices.

    Raises:
        RecordError: if the path is one.
        OSError: if there is nothing, or it cannot be known.
    """
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode):
        what = "a directory" if stat.S_ISDIR(mode) else "no regular file"
        raise RecordError(f"{path} is {what}; name a run file")


def without_unfinished_line(data: bytes) -> bytes:
    """A file's lines without what follows the last end of a line, if that is no whole line of JSON.

    A file of one line is returned as it is.
    """
    end = data.rfind(b"\n") + 1
    try:
        msgspec.json.decode(data[end:], type=msgspec.Raw)
    except (msgspec.DecodeError, RecursionError):
        return data[:end] or data
    return data


def decode_lines(path: Path, data: bytes, *, purpose: Purpose, known: int = 0) -> list[Result]:
    """The results in a run file's bytes, one a line, without the first ``known`` lines.

    What a user's metric does not give any more is refused only if it counts, and left out of an output.

    Raises:
        ContentError: as :func:`read_run`.
    """
    check_header(path, data, purpose=purpose)
    results: list[Result] = []
    changed: dict[tuple[object, ...], ChangedMetricError] = {}
    for number, line in enumerate(data.split(b"\n"), 1):
        if number > max(1, known) and line.strip():
            try:
                results.append(result := _decode(path, number, line, purpose))
                changed.pop(result.key, None)
            except ChangedMetricError as error:
                results.append(error.record)
                changed[error.record.key] = error
    if changed and purpose != "output":
        raise next(iter(changed.values()))
    return [result for result in results if result.key not in changed]


def _decode(path: Path, number: int, line: bytes, purpose: Purpose) -> Result:
    try:
        return verify(decode_line(line))
    except MetricError as error:
        raise RecordError(f"{path}: line {number:,}: {error}") from error
    except ChangedMetricError as error:
        problem = f"{error}; the number was edited, or the metric {error.record.task.metric} was since"
        raise ChangedMetricError(f"{path}: line {number:,}: {problem}; {_CHANGED[purpose]}", error.record) from error
    except ValueError as error:
        problem = error if isinstance(error, ContentError) else _syntax_problem(line, str(error))
        if _is_header(line):
            problem = "it is the header of another run file, which convert joins without loss"
        raise ContentError(f"{path} is not a run file: line {number:,}: {problem}; {_DAMAGED[purpose]}") from error


def _is_header(line: bytes) -> bool:
    """Whether a line begins another run file, as where two were joined by hand."""
    with suppress(msgspec.MsgspecError, RecursionError):
        msgspec.json.decode(line, type=Header)
        return True
    return False


def check_header(path: Path, data: bytes, *, purpose: Purpose) -> None:
    """Refuse what does not begin as a run file of this version.

    Raises:
        ContentError: if it does not.
    """
    problem = _text_problem(data)
    if not problem:
        line = data.partition(b"\n")[0]
        try:
            version = msgspec.json.decode(line, type=Header).schema_version
        except (msgspec.MsgspecError, RecursionError) as error:
            problem = _syntax_problem(line, str(error))
        else:
            problem = None if version > 0 else f"there is no schema version {version}"
    if problem:
        raise ContentError(f"{path} is not a run file: {problem}; {_DAMAGED[purpose]}")
    if version > SCHEMA_VERSION:
        way_out = "upgrade quantsuite"
    elif version < SCHEMA_VERSION:
        way_out = f"convert it: python -m quantsuite convert {path} NEW"
        way_out += ", or repeat the command with --fresh" if purpose == "output" else ""
    else:
        return
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


def _syntax_problem(line: bytes, message: str) -> str:
    """msgspec's message, with the word for what JSON has no literal for."""
    if message == "Input data was truncated":
        return f"it is truncated after {len(line):,} bytes"
    place = re.search(r"\(byte (\d+)\)", message)
    literal = place and re.match(rb"NaN|-?Infinity|nan|-?inf", line[max(0, int(place[1]) - 1) :].lstrip(b" :,["))
    return f"{literal[0].decode()} is no number of JSON (byte {place[1]})" if literal and place else message


def verify(result: Result) -> Result:
    """A result whose numbers are those that its items give.

    Raises:
        ContentError: if they are not; :class:`ChangedMetricError` if the metric is a user's.
    """
    if not isinstance(result, Record) or result.items is None or result.value is None:
        return result
    try:
        found = disagreement(result.metric, result.items, result.value, result.details)
    except (ValueError, ArithmeticError) as error:
        raise _contradiction(result, f"{result}: {error}") from error
    if found is not None:
        message = "{}: {} is {!r}, its items give {!r} as {}".format(result, *found, result.task.metric)
        raise _contradiction(result, message)
    return result


def _contradiction(record: Record, message: str) -> ContentError:
    return ContentError(message) if record.task.metric in BUILT_IN else ChangedMetricError(message, record)


def read_runs(paths: Iterable[Path]) -> Run:
    """What several run files hold together; of what was measured several times alike, the last.

    Raises:
        RecordError: as :func:`read_run`, if no record was found, or if a cell was measured under
            different conditions, on different weights or by different kernels of one name.
    """
    paths = list(paths)
    measured: dict[Key, Record] = {}
    results: list[Result] = []
    for path in paths:
        run = read_run(path)
        for record in run.records:
            if record.measured and record.key in measured:
                _check_alike(path, record, measured[record.key])
        measured |= {record.key: record for record in run.records if record.measured}
        results += run.results
    if not results:
        raise RecordError(f"no records in {', '.join(map(str, paths)) or 'no files'}; run pytest tests_accuracy first")
    return Run.of(results)


def _check_alike(path: Path, record: Record, other: Record) -> None:
    different = differences(record, other, with_model=True)
    ours, theirs = (each.subject.kernel_sha256[:12] for each in (record, other))
    if ours and theirs and ours != theirs:
        different.append(f"kernel sha256 is {ours}, not {theirs}")
    if different:
        raise RecordError(
            f"{path}: {record} was measured before under other conditions: {'; '.join(different)}. "
            "Make a report of each run"
        )
