"""A run with long drift is read and reported in time that its tokens alone decide."""

import io
import time
from pathlib import Path

import pytest
from rich.console import Console

from meta_tests.factories import DRIFT, divergences, record, variants
from quantsuite.lines import encode_line
from quantsuite.margins import Margins
from quantsuite.reading import read_runs
from quantsuite.records import SCHEMA_VERSION
from quantsuite.reporting import terminal_summary, write_report

SECONDS_A_MILLION = 1.5
"""Of a processor, for a million tokens: so 400,000 in each of 25 cells take less than 15."""


def run_file(path: Path, tokens: int) -> Path:
    """25 cells of so many tokens."""
    items = divergences(tokens)
    cells = [record(DRIFT, scheme, execution, items=items) for scheme, execution in [("bf16", None), *variants()]]
    path.write_bytes(b"\n".join((b'{"schema_version":%d}' % SCHEMA_VERSION, *map(encode_line, cells), b"")))
    return path


def seconds(path: Path) -> float:
    """Of this thread, to read a run and report it twice over: the least of three, as other work adds to the rest."""
    found = []
    for _ in range(3):
        begin = time.thread_time()
        run = read_runs([path])
        Console(file=io.StringIO()).print(terminal_summary(run.records, Margins()))
        write_report(run, path.parent)
        found.append(time.thread_time() - begin)
    return min(found)


@pytest.mark.parametrize("tokens", [20_000, pytest.param(400_000, marks=pytest.mark.slow)])
def test_long_drift_is_reported_in_seconds(tokens: int, tmp_path: Path) -> None:
    short, long = run_file(tmp_path / "short.jsonl", 100), run_file(tmp_path / "long.jsonl", tokens)
    assert seconds(long) - seconds(short) < SECONDS_A_MILLION * 25 * tokens / 1e6
