"""Writing run files: what is appended, what stays, and when results are on disk."""

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
from quantsuite.lines import decode_line
from quantsuite.locking import locked
from quantsuite.reading import read_run
from quantsuite.records import ErrorPoint, Record, RecordError, Run
from quantsuite.runfile import HEADER, RunFile, write_run


def of(scheme: str, *, model: str = "tiny", seed: int = 0, **subject: object) -> Record:
    made = record(DIRECT, scheme, "real", model=model, items=factories.choices(20, 0.5, seed=seed))
    return msgspec.structs.replace(made, subject=msgspec.structs.replace(made.subject, **subject))


def measured_in(**environment: str) -> Record:
    made = of("int8-row")
    return msgspec.structs.replace(made, environment=msgspec.structs.replace(made.environment, **environment))


def skipped(scheme: str, model: str) -> Record:
    """A cell that ended before its model was loaded, so that its weights are not known."""
    made = record(DIRECT, scheme, "real", model=model, outcome="skipped", reason="no dataset")
    return msgspec.structs.replace(made, subject=msgspec.structs.replace(made.subject, model_sha256=""))


def lines_of(path: Path) -> list[Record]:
    return [decode_line(line) for line in path.read_bytes().splitlines()[1:]]


def test_a_record_is_one_line_after_a_header_with_what_people_read_first(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    write_run(path, [of("int8-row")])
    header, line = path.read_text().splitlines()
    assert header == '{"schema_version":2}'
    assert line.startswith('{"type":"cell","task":{"name":"world-mmlu/direct","version":1,"metric":"accuracy"},')
    assert '"scheme":"int8-row","execution":"real"' in line and '"value":0.5,"details":{"unparsed":0.0' in line
    assert '"answer":{"i1":"' in line and '"group":{"names":["botany"' in line
    assert line.rindex('"items":') > max(line.index(f'"{name}":') for name in ("value", "dataset", "environment"))


OTHERS = {
    "another model": of("int8-row", model="other"),
    "another scheme": of("fp8-row"),
    "another engine": of("int8-row", engine="vllm"),
    "another plan": of("int8-row", plan="ab" * 32),
    "another kernel": of("int8-row", kernel="mine"),
    "a quantized head": of("int8-row", head=True),
    "another device": measured_in(device="NVIDIA H200"),
    "another dtype": measured_in(dtype="fp32"),
    "unmeasured": skipped("fp8-row", "tiny"),
}


@pytest.mark.parametrize("stays", OTHERS.values(), ids=OTHERS)
def test_what_a_run_did_not_measure_stays(stays: Record, tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    write_run(path, [stays])
    RunFile(path).append([of("int8-row")])
    assert read_run(path).records == [stays, of("int8-row")]


REPLACED = {
    "other weights": of("int8-row", model_sha256="cd" * 32),
    "other answers": of("int8-row", seed=1),
    "other threads": msgspec.structs.replace(measured_in(), seconds=9.0),
    "a limit": record(DIRECT, "int8-row", "real", items=factories.choices(4, 0.5)),
    "unmeasured": skipped("int8-row", "tiny"),
}


@pytest.mark.parametrize("earlier", REPLACED.values(), ids=REPLACED)
def test_the_last_line_of_a_cell_counts_and_the_earlier_ones_stay(earlier: Record, tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    write_run(path, [earlier])
    before = path.read_bytes()
    RunFile(path).append([of("int8-row")])
    assert read_run(path).records == [of("int8-row")]
    assert lines_of(path) == [earlier, of("int8-row")] and path.read_bytes().startswith(before)


def test_what_the_file_holds_already_is_not_written_again(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    write_run(path, [of("int8-row"), of("fp8-row")])
    RunFile(path).append([of("fp8-row"), of("int8-row", seed=1)])
    assert lines_of(path) == [of("int8-row"), of("fp8-row"), of("int8-row", seed=1)]


def test_a_result_that_another_run_replaced_is_written_again(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    (ours := RunFile(path)).append([of("int8-row")])
    RunFile(path).append([of("int8-row", seed=1)])
    ours.append([of("int8-row")])
    assert read_run(path).records == [of("int8-row")]


@pytest.mark.parametrize("rest", ['{"type":"cell","task', '{"type":"cell"}x', "\0\0\0"])
def test_a_last_line_that_was_not_finished_is_left_out_and_replaced(rest: str, tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    write_run(path, [of("int8-row")])
    path.write_bytes(path.read_bytes() + rest.encode())
    assert read_run(path).records == read_run(path, purpose="output").records == [of("int8-row")]
    RunFile(path).append([of("fp8-row")])
    assert lines_of(path) == [of("int8-row"), of("fp8-row")]


def test_a_baseline_whose_last_line_is_not_finished_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    write_run(path, [of("int8-row"), of("fp8-row")])
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(RecordError, match=r"line 3: it is truncated after .* restore it from version control"):
        read_run(path, purpose="baseline")


def test_a_last_line_that_only_lacks_its_end_counts(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    write_run(path, [of("int8-row")])
    path.write_bytes(path.read_bytes().rstrip())
    assert read_run(path, purpose="baseline").records == [of("int8-row")]
    RunFile(path).append([of("fp8-row")])
    assert lines_of(path) == [of("int8-row"), of("fp8-row")]


def test_an_empty_file_is_a_place_to_write_to_and_no_report(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    path.touch()
    assert read_run(path, purpose="output") == Run()
    with pytest.raises(RecordError, match="it is empty"):
        read_run(path)
    RunFile(path).append([])
    assert path.read_bytes() == HEADER and read_run(path) == Run()


@pytest.mark.parametrize("content", [b"{", b'{"schema_version": 1}', b"\0\1"])
def test_a_file_that_cannot_be_read_is_moved_aside_as_it_is_or_left(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    path.write_bytes(content)
    with pytest.raises(RecordError, match="--fresh"):
        RunFile(path).append([of("int8-row")])
    assert [path.read_bytes(), *tmp_path.iterdir()] == [content, path]
    (file := RunFile(path, move_unreadable=True)).append([of("int8-row")])
    assert [aside.read_bytes() for aside in file.moved] == [content]
    assert read_run(path).records == [of("int8-row")]


def test_a_device_or_a_folder_is_never_replaced(tmp_path: Path) -> None:
    for path in (tmp_path, Path(os.devnull)):
        with pytest.raises(RecordError, match="name a run file"):
            RunFile(path, move_unreadable=True).append([of("int8-row")])
    assert not Path(os.devnull).is_file()


def test_a_link_to_a_run_file_stays_a_link(tmp_path: Path) -> None:
    path, link = tmp_path / "run.jsonl", tmp_path / "link.jsonl"
    link.symlink_to(path)
    RunFile(link).append([of("int8-row")])
    assert link.is_symlink() and read_run(path).records == [of("int8-row")]


def test_a_place_that_cannot_be_written_is_named_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    path = tmp_path / "file" / "run.jsonl"
    with pytest.raises(RecordError) as caught:
        RunFile(path, option="--numerics-output").append([of("int8-row")])
    assert str(caught.value).startswith(f"cannot write {path}: ")
    assert str(caught.value).endswith("; choose another place with --numerics-output")


def test_threads_of_one_process_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    records = [of(f"int8-g{index}", model=str(index)) for index in range(1, 17)]
    threads = [threading.Thread(target=lambda each=each: RunFile(path).append([each])) for each in records]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {each.key for each in lines_of(path)} == {each.key for each in records}


def test_a_lock_that_another_holds_too_long_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "run.jsonl"
    monkeypatch.setattr(locking.locked.__wrapped__, "__defaults__", (0.01,))
    with (
        locked(path),
        pytest.raises(
            RecordError, match=r"cannot write .*run\.jsonl: another run has held it for 0\.01 s; end that run"
        ),
    ):
        RunFile(path).append([of("int8-row")])
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_was_moved_away_before_it_was_locked_is_opened_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between a waiter's opening the file and its locking it, the holder moves it aside and lets go."""
    path, aside, grant = tmp_path / "run.jsonl", tmp_path / "aside.jsonl", locking.lock_descriptor

    def late(descriptor: int, *, blocking: bool) -> bool:
        monkeypatch.setattr(locking, "lock_descriptor", grant)
        path.rename(aside)
        return grant(descriptor, blocking=blocking)

    monkeypatch.setattr(locking, "lock_descriptor", late)
    RunFile(path).append([of("int8-row")])
    assert aside.read_bytes() == b"" and read_run(path).records == [of("int8-row")]


@pytest.mark.parametrize("in_place", [True, False])
def test_a_file_that_was_edited_between_two_writes_is_read_again(in_place: bool, tmp_path: Path) -> None:
    path, other = tmp_path / "run.jsonl", tmp_path / "other.jsonl"
    (file := RunFile(path)).append([of("int8-row")])
    write_run(other, [of("fp8-row", model="other"), of("fp8-tensor", model="other"), of("fp8-g64", model="other")])
    if in_place:
        path.write_bytes(other.read_bytes())
    else:
        other.rename(path)
    file.append([of("int8-row")])
    assert {each.subject.model for each in read_run(path).records} == {"other", "tiny"}


def test_an_append_that_is_interrupted_leaves_the_file_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(descriptor: int) -> None:
        raise KeyboardInterrupt

    path = tmp_path / "run.jsonl"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(os, "fsync", interrupted)
        RunFile(path).append([of("int8-row")])
    assert not path.exists()
    (file := RunFile(path)).append([of("int8-row")])
    before = path.read_bytes()
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(os, "fsync", interrupted)
        file.append([of("fp8-row")])
    assert path.read_bytes() == before
    file.append([of("fp8-row")])
    assert lines_of(path) == [of("int8-row"), of("fp8-row")]


def test_a_run_file_that_is_there_is_not_written_as_a_new_one(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    write_run(path, [of("int8-row")])
    with pytest.raises(RecordError, match="exists; name a new file"):
        write_run(path, [of("fp8-row")])
    assert read_run(path).records == [of("int8-row")]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write every file")
def test_a_file_that_may_not_be_written_is_found_before_anything_is_measured(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    write_run(path, [of("int8-row")])
    path.chmod(0o444)
    with pytest.raises(RecordError, match=f"cannot write {path}: Permission denied"):
        RunFile(path).check_writable()


def point(x: float) -> ErrorPoint:
    fields = {"study": "k", "quantity": "error", "series": "int8", "scheme": "int8-row", "shape": [1], "seed": 0}
    return ErrorPoint(x=x, measured=0.1, predicted=None, **fields)


def test_results_wait_no_longer_than_the_interval_and_are_not_written_one_by_one(tmp_path: Path) -> None:
    path, points, sizes = tmp_path / "numerics.jsonl", [], set()
    output = Output(RunFile(path), interval=NUMERICS_INTERVAL / 10)
    begin = time.monotonic()
    for index in range(1000):
        points.append(point(index))
        output.add(points[-1])
        sizes.add(path.stat().st_size)
        time.sleep(0.0005)
    assert 1 < len(sizes) <= 2 + (time.monotonic() - begin) / (NUMERICS_INTERVAL / 10)
    time.sleep(NUMERICS_INTERVAL / 10)
    output.add(point(1000))
    assert read_run(path).errors == [*points, point(1000)]


def test_one_file_holds_records_and_numerics(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    write_run(path, [of("int8-row")])
    RunFile(path).append([point(1)])
    assert read_run(path) == Run(records=[of("int8-row")], errors=[point(1)])
