"""Run files under several writers, writers that are killed, and full disks: nothing that was measured is lost."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from meta_tests.run_writer import written_record
from quantsuite.collector import NUMERICS_INTERVAL
from quantsuite.lines import decode_line, encode_line
from quantsuite.reading import read_run
from quantsuite.records import Record
from quantsuite.runfile import RunFile, write_run

ROOT = Path(__file__).parent.parent
RECORDS = 8
"""That each of two writers writes."""

repeated = pytest.mark.parametrize("repetitions", [5, pytest.param(100, marks=pytest.mark.slow)])


def writer(path: Path, model: str, dtype: str, count: int, *largest: int) -> subprocess.Popen[str]:
    arguments = [str(path), model, dtype, str(count), *map(str, largest)]
    command = [sys.executable, "-m", "meta_tests.run_writer", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def lines_of(path: Path) -> list[Record]:
    """The record of every line, whether a later one has the same key or not; nothing else may be in the folder."""
    assert list(path.parent.iterdir()) == [path]
    return [decode_line(line) for line in path.read_bytes().splitlines()[1:]]


def killed_after(seconds: float, path: Path) -> list[int]:
    """Kill a writer so long after its first record; which records it had confirmed."""
    process = writer(path, "tiny", "bf16", 10_000)
    assert process.stdout is not None
    with process, process.stdout as confirmations:
        lines = [confirmations.readline()]
        time.sleep(seconds)
        process.kill()
        lines += confirmations.readlines()
    return [int(line) for line in lines if line.endswith("\n")]


@repeated
def test_a_writer_that_is_killed_leaves_whole_lines_with_what_it_confirmed(repetitions: int, tmp_path: Path) -> None:
    draw, whole = random.Random(repetitions), 0
    for repetition in range(repetitions):
        path = tmp_path / str(repetition) / "run.jsonl"
        confirmed = killed_after(draw.uniform(0, 0.1), path)
        found = read_run(path).records
        assert confirmed
        assert [written_record("tiny", "bf16", index) for index in confirmed] == found[: len(confirmed)]
        other = written_record("other", "bf16", 0)
        RunFile(path).append([other])
        whole += lines_of(path) == [*found, other]
    assert whole == repetitions


@repeated
def test_a_line_that_was_cut_anywhere_costs_no_other(repetitions: int, tmp_path: Path) -> None:
    """As a disk leaves it that loses power; the file is one of two records."""
    draw, path, records = random.Random(repetitions), tmp_path / "run.jsonl", []
    for index in (0, 1):
        records.append(written_record("tiny", "bf16", index))
        RunFile(path).append([records[-1]])
    data = path.read_bytes()
    begin = data[:-1].rindex(b"\n") + 1
    for cut in (begin, begin + 1, len(data) - 1, *(draw.randrange(begin, len(data)) for _ in range(repetitions))):
        path.write_bytes(data[:cut])
        expected = records if cut == len(data) - 1 else records[:1]
        assert read_run(path).records == expected
        RunFile(path).append([other := written_record("other", "bf16", 0)])
        assert lines_of(path) == [*expected, other]


@repeated
@pytest.mark.parametrize(
    "subjects",
    [[("tiny", "bf16"), ("other", "bf16")], [("tiny", "bf16"), ("tiny", "fp16")], [("tiny", "bf16"), ("tiny", "bf16")]],
    ids=["two models", "two dtypes", "the same cells"],
)
def test_two_writers_at_once_lose_nothing(subjects: list[tuple[str, str]], repetitions: int, tmp_path: Path) -> None:
    complete = 0
    earlier = written_record("tiny", "fp32", 0)
    expected = [earlier, *(written_record(*subject, index) for subject in set(subjects) for index in range(RECORDS))]
    for repetition in range(repetitions):
        path = tmp_path / str(repetition) / "run.jsonl"
        path.parent.mkdir()
        write_run(path, [earlier])
        processes = [writer(path, *subject, RECORDS) for subject in subjects]
        messages = [process.communicate()[1] for process in processes]
        assert messages == ["", ""]
        found = lines_of(path)
        complete += len(found) == len(expected) and all(record in found for record in expected)
    assert complete == repetitions


def assert_refused(path: Path, process: subprocess.Popen[str], reason: str) -> None:
    """Refused with one line, the file left as it was and nothing beside it."""
    before = path.read_bytes()
    _, message = process.communicate()
    assert process.returncode == 1
    assert message == f"cannot write {path}: {reason}; make room, or choose another place with --output\n"
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


@repeated
def test_a_file_that_may_not_grow_so_large_stays_as_it_was(repetitions: int, tmp_path: Path) -> None:
    draw, refused = random.Random(repetitions), 0
    for repetition in range(repetitions):
        path = tmp_path / str(repetition) / "run.jsonl"
        path.parent.mkdir()
        write_run(path, [written_record("tiny", "fp16", index) for index in range(3)])
        largest = path.stat().st_size + draw.randrange(len(encode_line(written_record("tiny", "bf16", 0))))
        assert_refused(path, writer(path, "tiny", "bf16", 1, largest), "File too large")
        refused += 1
    assert refused == repetitions


def test_a_file_that_cannot_be_begun_is_not_there(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    _, message = writer(path, "tiny", "bf16", 1, 100).communicate()
    assert "File too large" in message and not path.exists()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB, where this user may mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)], capture_output=True, text=True
    )
    if mounted.returncode != 0:
        pytest.skip(f"mounting a small disk takes a privileged user: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@repeated
def test_a_disk_that_fills_up_leaves_the_last_whole_file(repetitions: int, small_disk: Path) -> None:
    draw, refused = random.Random(repetitions), 0
    path, other = small_disk / "run.jsonl", small_disk / "other"
    for _ in range(repetitions):
        other.write_bytes(bytes(draw.randrange(40_000)))
        confirmed, message = writer(path, "tiny", "bf16", 100).communicate()
        assert message == (
            f"cannot write {path}: No space left on device; make room, or choose another place with --output\n"
        )
        expected = [written_record("tiny", "bf16", int(line)) for line in confirmed.split()]
        assert read_run(path).records == expected
        assert {*small_disk.iterdir()} == {path, other}
        path.unlink()
        refused += len(expected) > 0
    assert refused == repetitions


SLOW_PROJECT = """
import time, pytest
from quantsuite.records import ErrorPoint

@pytest.mark.parametrize("x", range(10_000))
def test(x, record_error):
    record_error(ErrorPoint(study="k", quantity="e", series="s", scheme="s", x=x, shape=[], measured=0.1,
                            predicted=None, seed=0))
    with open("done", "a") as done:
        print(time.time(), file=done)
    time.sleep(0.01)
"""


def stopped_after(seconds: float, ending: signal.Signals, folder: Path) -> tuple[int, list[float]]:
    """Stop a run that measures all the time; how many results its file holds, and when each was measured."""
    (folder / "test_slow.py").write_text(SLOW_PROJECT)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "quantsuite.plugin",
        "-p",
        "no:cacheprovider",
        "test_slow.py",
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL)
    done = folder / "done"
    while not done.exists():
        time.sleep(0.05)
    time.sleep(seconds)
    process.send_signal(ending)
    process.wait()
    written = read_run(folder / "reports" / "numerics.jsonl").errors
    assert [point.x for point in written] == list(range(len(written)))
    return len(written), [float(line) for line in done.read_text().splitlines()]


def test_an_interrupted_run_of_numerics_has_written_all_results(tmp_path: Path) -> None:
    written, times = stopped_after(1.5, signal.SIGINT, tmp_path)
    assert len(times) - 1 <= written <= len(times)


def test_a_killed_run_of_numerics_loses_about_a_second_of_results(tmp_path: Path) -> None:
    written, times = stopped_after(2.5, signal.SIGKILL, tmp_path)
    assert written > 1
    assert times[-1] - times[written - 1] <= NUMERICS_INTERVAL + 0.5
