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
from quantsuite.merging import with_records

from meta_tests.run_writer import written_record
from quantsuite.collector import NUMERICS_INTERVAL
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


def records_in(folder: Path) -> list[Record]:
    """Of the run file and of all that was set aside; nothing else may be there."""
    return [record for path in folder.iterdir() for record in read_run(path).records]


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
def test_a_writer_that_is_killed_leaves_a_whole_file_with_what_it_confirmed(repetitions: int, tmp_path: Path) -> None:
    draw, whole, interrupted = random.Random(repetitions), 0, 0
    for repetition in range(repetitions):
        path = tmp_path / str(repetition) / "run.json"
        confirmed = killed_after(draw.uniform(0, 0.1), path)
        found = read_run(path).records
        assert confirmed
        assert [written_record("tiny", "bf16", index) for index in confirmed] == found[: len(confirmed)]
        interrupted += len(list(path.parent.iterdir())) > 1
        other = written_record("other", "bf16", 0)
        RunFile(path).update(lambda run, other=other: with_records(run, [other]))
        assert list(path.parent.iterdir()) == [path]
        whole += read_run(path).records == [*found, other]
    assert whole == repetitions
    assert interrupted > 0 or repetitions < 100, "no writer was killed while it wrote"


@repeated
@pytest.mark.parametrize(
    "subjects",
    [[("tiny", "bf16"), ("other", "bf16")], [("tiny", "bf16"), ("tiny", "fp16")]],
    ids=["two models", "two dtypes"],
)
def test_two_writers_at_once_lose_nothing(subjects: list[tuple[str, str]], repetitions: int, tmp_path: Path) -> None:
    complete = 0
    expected = [written_record(*subject, index) for subject in subjects for index in range(RECORDS)]
    earlier = written_record("tiny", "fp32", 0)
    for repetition in range(repetitions):
        path = tmp_path / str(repetition) / "run.json"
        write_run(path, [earlier])
        processes = [writer(path, *subject, RECORDS) for subject in subjects]
        messages = [process.communicate()[1] for process in processes]
        assert messages == ["", ""]
        found = records_in(path.parent)
        assert len(list(path.parent.iterdir())) <= 1 + len(subjects)
        complete += all(record in found for record in [*expected, earlier])
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
@pytest.mark.parametrize("earlier", ["other", "tiny"], ids=["the file", "what is set aside"])
def test_a_file_that_may_not_grow_so_large_stays_as_it_was(earlier: str, repetitions: int, tmp_path: Path) -> None:
    draw, refused = random.Random(repetitions), 0
    for repetition in range(repetitions):
        path = tmp_path / str(repetition) / "run.json"
        write_run(path, [written_record(earlier, "fp16", index) for index in range(3)])
        smallest = path.stat().st_size
        assert_refused(path, writer(path, "tiny", "bf16", 1, draw.randrange(smallest // 3)), "File too large")
        refused += 1
    assert refused == repetitions


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
    path, other = small_disk / "run.json", small_disk / "other"
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
    written = read_run(folder / "reports" / "numerics.json").errors
    assert [point.x for point in written] == list(range(len(written)))
    return len(written), [float(line) for line in done.read_text().splitlines()]


def test_an_interrupted_run_of_numerics_has_written_all_results(tmp_path: Path) -> None:
    written, times = stopped_after(1.5, signal.SIGINT, tmp_path)
    assert len(times) - 1 <= written <= len(times)


def test_a_killed_run_of_numerics_loses_about_a_second_of_results(tmp_path: Path) -> None:
    written, times = stopped_after(2.5, signal.SIGKILL, tmp_path)
    assert written > 1
    assert times[-1] - times[written - 1] <= NUMERICS_INTERVAL + 0.5
