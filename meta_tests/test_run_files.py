"""Writing run files: what stays, what is set aside, and when results are on disk."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import msgspec
import pytest

from meta_tests import factories
from meta_tests.factories import DIRECT, record
from quantsuite import locking
from quantsuite.collector import NUMERICS_INTERVAL, Output
from quantsuite.locking import locked
from quantsuite.merging import with_records
from quantsuite.reading import read_run
from quantsuite.records import ErrorPoint, Record, RecordError, Run
from quantsuite.runfile import RunFile, write_run


def of(scheme: str, *, model: str = "tiny", dtype: str = "bf16", weights: str = "ab" * 32, seed: int = 0) -> Record:
    made = record(DIRECT, scheme, "real", model=model, items=factories.choices(20, 0.5, seed=seed))
    return msgspec.structs.replace(
        made,
        subject=msgspec.structs.replace(made.subject, model_sha256=weights),
        environment=msgspec.structs.replace(made.environment, dtype=dtype),
    )


def skipped(scheme: str, model: str) -> Record:
    """A cell that ended before its model was loaded, so that its weights are not known."""
    made = record(DIRECT, scheme, "real", model=model, outcome="skipped", reason="no dataset")
    return msgspec.structs.replace(made, subject=msgspec.structs.replace(made.subject, model_sha256=""))


def add(file: RunFile, *own: Record) -> None:
    file.update(lambda run: with_records(run, own))


def set_aside(path: Path) -> list[Record]:
    return [each for other in path.parent.iterdir() if other != path for each in read_run(other).records]


@pytest.mark.parametrize(
    "stays",
    [of("int8-row", model="other"), of("fp8-row"), skipped("int8-row", "other"), skipped("fp8-row", "tiny")],
    ids=["another model", "another cell", "unmeasured of another model", "unmeasured"],
)
def test_what_a_run_did_not_measure_stays(stays: Record, tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    write_run(path, [stays])
    add(RunFile(path), of("int8-row"))
    assert read_run(path).records == [stays, of("int8-row")]
    assert set_aside(path) == []


@pytest.mark.parametrize("other", [{"weights": "cd" * 32}, {"dtype": "fp16"}], ids=["weights", "environment"])
def test_records_of_other_weights_or_environment_are_set_aside(other: dict[str, str], tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    earlier = [of("int8-row", **other), of("fp8-row", **other)]
    write_run(path, earlier)
    add(file := RunFile(path), of("int8-row"))
    assert read_run(path).records == [of("int8-row")]
    assert set_aside(path) == earlier
    assert file.set_aside == [other for other in tmp_path.iterdir() if other != path]


def test_a_measurement_that_a_failure_replaces_is_set_aside_and_a_repetition_is_not(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    write_run(path, [of("int8-row"), of("fp8-row")])
    add(RunFile(path), skipped("int8-row", "tiny"), of("fp8-row", seed=1))
    assert set_aside(path) == [of("int8-row")]


def test_what_several_writes_replace_is_set_aside_in_one_file(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    ours, theirs = RunFile(path), RunFile(path)
    for count in (1, 2, 3):
        add(theirs, *(of(f"int8-g{2**index}", dtype="fp16") for index in range(count)))
        add(ours, *(of(f"int8-g{2**index}") for index in range(count)))
    assert {path, *ours.set_aside, *theirs.set_aside} == {*tmp_path.iterdir()}
    assert len(ours.set_aside) == len(theirs.set_aside) == 1
    assert len(read_run(ours.set_aside[0]).records) == 3


@pytest.mark.parametrize("content", [b"{", b'{"schema_version": 0}', b"\0\1"])
def test_a_file_that_cannot_be_read_is_moved_aside_as_it_is_or_left(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    path.write_bytes(content)
    with pytest.raises(RecordError, match="--fresh"):
        add(RunFile(path), of("int8-row"))
    assert [path.read_bytes(), *tmp_path.iterdir()] == [content, path]
    add(file := RunFile(path, move_unreadable=True), of("int8-row"))
    assert [aside.read_bytes() for aside in file.set_aside] == [content]
    assert read_run(path).records == [of("int8-row")]


def test_a_device_or_a_folder_is_never_replaced(tmp_path: Path) -> None:
    for path in (tmp_path, Path(os.devnull)):
        with pytest.raises(RecordError, match="name a run file"):
            add(RunFile(path, move_unreadable=True), of("int8-row"))
    assert not Path(os.devnull).is_file()


def test_a_link_to_a_run_file_stays_a_link(tmp_path: Path) -> None:
    path, link = tmp_path / "run.json", tmp_path / "link.json"
    link.symlink_to(path)
    add(RunFile(link), of("int8-row"))
    assert link.is_symlink() and read_run(path).records == [of("int8-row")]


def test_a_place_that_cannot_be_written_is_named_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    path = tmp_path / "file" / "run.json"
    with pytest.raises(RecordError) as caught:
        add(RunFile(path, option="--numerics-output"), of("int8-row"))
    assert str(caught.value).startswith(f"cannot write {path}: ")
    assert str(caught.value).endswith("; choose another place with --numerics-output")


def test_threads_of_one_process_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    records = [of(f"int8-g{index}", model=str(index)) for index in range(1, 17)]
    threads = [threading.Thread(target=lambda each=each: add(RunFile(path), each)) for each in records]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {each.cell for each in read_run(path).records} == {each.cell for each in records}


def test_a_lock_that_another_holds_too_long_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "run.json"
    monkeypatch.setattr(locking.locked.__wrapped__, "__defaults__", (0.01,))
    with locked(path), pytest.raises(RecordError, match=r"another run has held .*\.run\.json\.lock for 0\.01 s; end"):
        add(RunFile(path), of("int8-row"))
    assert list(tmp_path.iterdir()) == []


def test_a_lock_that_its_former_holder_removed_is_taken_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between a waiter's opening the file and its locking it, the holder removes it and lets go."""
    path, lock, grant = tmp_path / "run.json", tmp_path / ".run.json.lock", locking.lock_descriptor

    def late(descriptor: int, *, blocking: bool) -> bool:
        monkeypatch.setattr(locking, "lock_descriptor", grant)
        lock.unlink()
        return grant(descriptor, blocking=blocking)

    monkeypatch.setattr(locking, "lock_descriptor", late)
    with locked(path), pytest.raises(TimeoutError), locked(path, timeout=0.01):
        pytest.fail("two hold the lock")


def test_a_file_that_was_edited_between_two_writes_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    add(file := RunFile(path), of("int8-row"))
    write_run(path, [of("fp8-row", model="other")])
    add(file, of("int8-row"))
    assert {each.subject.model for each in read_run(path).records} == {"other", "tiny"}


def point(x: float) -> ErrorPoint:
    fields = {"study": "k", "quantity": "error", "series": "int8", "scheme": "int8-row", "shape": [1], "seed": 0}
    return ErrorPoint(x=x, measured=0.1, predicted=None, **fields)


def test_results_wait_no_longer_than_the_interval_and_are_not_written_one_by_one(tmp_path: Path) -> None:
    path, points, versions = tmp_path / "numerics.json", [], set()
    output = Output(
        RunFile(path),
        lambda run: msgspec.structs.replace(run, errors=list(points)),
        interval=NUMERICS_INTERVAL / 10,
    )
    begin = time.monotonic()
    for index in range(1000):
        points.append(point(index))
        output.changed()
        versions.add(path.stat().st_mtime_ns)
        time.sleep(0.0005)
    assert 1 < len(versions) <= 2 + (time.monotonic() - begin) / (NUMERICS_INTERVAL / 10)
    time.sleep(NUMERICS_INTERVAL / 10)
    output.changed()
    assert read_run(path).errors == points


def test_what_one_output_holds_of_records_stays_beside_numerics(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    write_run(path, [of("int8-row")])
    RunFile(path).update(lambda run: msgspec.structs.replace(run, errors=[point(1)]))
    assert read_run(path) == Run(records=[of("int8-row")], errors=[point(1)])
