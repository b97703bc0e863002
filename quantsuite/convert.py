"""Run files of older schema versions as files of this one, without loss."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from quantsuite.lines import result_of
from quantsuite.reading import ContentError, decode_lines, read_bytes, verify, without_unfinished_line
from quantsuite.records import RecordError, Result, Run
from quantsuite.runfile import RunFile

_KINDS = {"records": "cell", "properties": "property", "errors": "error"}
"""Lists of a file of version 1, and what stands in them."""


def convert(old: Sequence[Path], new: Path) -> int:
    """Write the results of run files of any version, one file after the other, as a new run file.

    Returns:
        The number of results in it.

    Raises:
        RecordError: if the new file exists, or one cannot be read or written.
    """
    if new.exists():
        raise RecordError(f"{new} exists; name a new file")
    results = [result for path in old for result in read_any(path)]
    RunFile(new, option="NEW").append(results)
    return len(Run.of(results).results)


def read_any(path: Path) -> list[Result]:
    """The results of a run file of this version or an older one.

    Raises:
        RecordError: as :func:`~quantsuite.reading.read_run`.
    """
    data = read_bytes(path, purpose="report")
    try:
        old = msgspec.json.decode(data, type=dict)
    except (msgspec.MsgspecError, RecursionError):  # Several lines, or no run file.
        old = {}
    if old.get("schema_version") != 1:
        return decode_lines(path, without_unfinished_line(data), purpose="report")
    try:
        fields = [_of_version_1(each, kind) for name, kind in _KINDS.items() for each in old.get(name, [])]
        return [verify(result_of(each)) for each in fields]
    except (ValueError, ArithmeticError, TypeError, LookupError) as error:
        raise ContentError(f"{path} is not a run file: {error}; restore it from a copy") from error


def _of_version_1(fields: dict[str, Any], kind: str) -> dict[str, Any]:
    """A record's fields under the names that they have now."""
    if kind != "cell":
        return {"type": kind, **fields}
    metric, subject = fields.pop("metric"), fields["subject"]
    engine, _, head = subject["engine"].partition("+")
    subject |= {"scheme": subject["scheme"]["name"], "engine": engine, "head": head == "head"}
    task = {"name": metric["name"], "version": metric["version"], "metric": _metric_of(metric["name"], metric["unit"])}
    return {"type": kind, "task": task, **fields}


def _metric_of(task: str, unit: str) -> str:
    """A metric's name by what version 1 says of it: its unit, and whether its items are documents."""
    if unit == "perplexity" and task.endswith("/document"):
        return "document perplexity"
    return "divergence" if unit == "nats" else unit
