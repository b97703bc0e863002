"""The command line: what a run records, resumption, the gate."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from meta_tests.command import accuracy, quantsuite
from quantsuite.reading import read_run
from quantsuite.records import Record
from quantsuite.runfile import write_run

SMALL = ["--limit", "24", "--execution", "simulated", "--device", "cpu", "--task", "world/document,world-mmlu"]


@pytest.fixture(scope="module")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run file of bf16, INT8 per row and INT3 per tensor on a few items."""
    output = tmp_path_factory.mktemp("run") / "run.jsonl"
    result = accuracy("--scheme", "int8-row,int3-tensor", "--output", str(output), *SMALL)
    assert result.status == 0, result.shown
    return output


def edited(source: Path, target: Path, change) -> Path:
    write_run(target, [change(record) for record in read_run(source).records])
    return target


def test_a_run_records_every_cell_with_its_provenance(small_run: Path) -> None:
    records = read_run(small_run).records
    assert len({record.key for record in records}) == len(records) == 9
    for record in records:
        assert record.outcome == "passed" and record.measured
        assert len(record.items) == record.dataset.items == 24
        assert record.subject.model_sha256 and record.dataset.sha256 and record.environment.versions["torch"]
        assert record.dataset.seed == 42


def test_a_repeated_run_reuses_its_records_and_fresh_does_not(small_run: Path, tmp_path: Path) -> None:
    output = edited(small_run, tmp_path / "run.jsonl", lambda record: msgspec.structs.replace(record, seconds=1234.5))
    arguments = ["--scheme", "int8-row", "--output", str(output), *SMALL]
    accuracy(*arguments)
    reused = [record.seconds for record in read_run(output).records]
    assert reused == [1234.5] * 9
    accuracy(*arguments, "--fresh")
    seconds = {record.subject.scheme: record.seconds for record in read_run(output).records}
    assert seconds.pop("int3-tensor") == 1234.5
    assert all(second < 1234.5 for second in seconds.values())
    assert list(tmp_path.iterdir()) == [output]


def with_other_weights(record: Record) -> Record:
    return msgspec.structs.replace(record, subject=msgspec.structs.replace(record.subject, model_sha256="other"))


def of_another_model(record: Record) -> Record:
    return msgspec.structs.replace(record, subject=msgspec.structs.replace(record.subject, model="other"))


def test_records_of_other_models_stay_in_the_run_file(small_run: Path, tmp_path: Path) -> None:
    output = edited(small_run, tmp_path / "run.jsonl", of_another_model)
    others = read_run(output).records
    accuracy("--scheme", "bf16", "--output", str(output), *SMALL)
    accuracy("--scheme", "bf16", "--model", "./nowhere", "--output", str(output), *SMALL)
    records = read_run(output).records
    assert [record for record in records if record.subject.model == "other"] == others
    assert {record.subject.model for record in records if record.measured} == {"other", "tiny"}
    assert list(tmp_path.iterdir()) == [output]


@pytest.mark.parametrize("options", [(), ("--fresh",)])
def test_what_a_run_replaces_stays_in_its_file(options: tuple[str, ...], small_run: Path, tmp_path: Path) -> None:
    output = edited(small_run, tmp_path / "run.jsonl", with_other_weights)
    earlier = output.read_bytes()
    accuracy("--scheme", "bf16", "--output", str(output), *SMALL, *options)
    weights = {record.subject.scheme: record.subject.model_sha256 for record in read_run(output).records}
    assert weights.pop("bf16") != "other" and set(weights.values()) == {"other"}
    assert output.read_bytes().startswith(earlier) and list(tmp_path.iterdir()) == [output]


def test_another_dtype_is_measured_beside_the_first(small_run: Path, tmp_path: Path) -> None:
    output = edited(small_run, tmp_path / "run.jsonl", lambda record: record)
    accuracy("--scheme", "bf16", "--output", str(output), *SMALL, "--dtype", "fp32")
    records = [record for record in read_run(output).records if record.subject.is_reference]
    assert [record.environment.dtype for record in records] == ["bf16"] * 3 + ["fp32"] * 3


def test_a_run_that_reuses_all_its_records_leaves_the_file_as_it_is(small_run: Path, tmp_path: Path) -> None:
    output = edited(small_run, tmp_path / "run.jsonl", lambda record: record)
    before = output.read_bytes()
    assert "reused:  6 of 6" in accuracy("--scheme", "int8-row", "--output", str(output), *SMALL).shown
    assert output.read_bytes() == before


def test_a_run_file_that_cannot_be_read_is_an_error_and_with_fresh_moved_aside(tmp_path: Path) -> None:
    output = tmp_path / "run.jsonl"
    output.write_text("{")
    arguments = ["--scheme", "bf16", "--output", str(output), *SMALL]
    result = accuracy(*arguments)
    assert result.status == pytest.ExitCode.USAGE_ERROR
    assert f"{output} is not a run file" in result.shown
    result = accuracy(*arguments, "--fresh")
    assert len(read_run(output).records) == 3
    (aside,) = set(tmp_path.iterdir()) - {output}
    assert aside.read_text() == "{" and f"moved:   {aside}" in result.shown


def test_an_interrupted_run_keeps_what_it_finished(tmp_path: Path) -> None:
    output = tmp_path / "run.jsonl"
    arguments = ["--scheme", "int8-row", "--output", str(output), *SMALL]
    accuracy(*arguments, "-k", "document and bf16")
    (finished,) = read_run(output).records
    accuracy(*arguments)
    records = read_run(output).records
    assert len(records) == 6
    assert finished.created in {record.created for record in records if record.key == finished.key}


def test_other_questions_are_measured_anew(small_run: Path, tmp_path: Path) -> None:
    output = edited(small_run, tmp_path / "run.jsonl", lambda record: msgspec.structs.replace(record, seconds=1234.5))
    accuracy("--scheme", "bf16", "--output", str(output), *SMALL, "--seed", "7", "--task", "world-mmlu/direct")
    record = next(
        r for r in read_run(output).records if (r.task.name, r.subject.scheme) == ("world-mmlu/direct", "bf16")
    )
    assert record.seconds < 1234.5 and record.dataset.seed == 7


def test_the_gate_passes_a_run_against_itself(small_run: Path, tmp_path: Path) -> None:
    output, baseline = tmp_path / "run.jsonl", tmp_path / "baseline.jsonl"
    records = read_run(small_run).records
    write_run(baseline, [*records, *map(of_another_model, records)])
    scheme = ["--scheme", "int8-row,int3-tensor", "--output", str(output), *SMALL]
    result = accuracy(*scheme, "--baseline", str(baseline), "--gate")
    assert result.status == 0, result.shown
    assert "gate passed: 9 of 9 cells compared" in result.shown


def as_int8_row(records: list[Record]) -> list[Record]:
    """INT3 per tensor under the name of INT8 per row: a planted regression."""
    by_key = {record.key: record for record in records}
    return [
        msgspec.structs.replace(record, value=other.value, details=other.details, items=other.items)
        for record in records
        if record.subject.scheme == "int8-row"
        for other in [by_key[record.key._replace(scheme="int3-tensor")]]
    ]


def test_the_gate_fails_a_planted_regression(small_run: Path, tmp_path: Path) -> None:
    worse = tmp_path / "worse.jsonl"
    write_run(worse, as_int8_row(read_run(small_run).records))
    baseline = tmp_path / "baseline.jsonl"
    write_run(baseline, [r for r in read_run(small_run).records if r.subject.scheme == "int8-row"])
    result = quantsuite("gate", str(worse), "--baseline", str(baseline))
    assert result.status == 1
    assert "gate failed" in result.shown and "worse" in result.shown


@pytest.mark.parametrize("baseline", ["empty.jsonl", "more.jsonl"])
def test_the_gate_fails_without_a_whole_comparison(baseline: str, small_run: Path, tmp_path: Path) -> None:
    records = read_run(small_run).records
    write_run(tmp_path / "empty.jsonl", [])
    write_run(tmp_path / "more.jsonl", records)
    write_run(tmp_path / "run.jsonl", records[:1])
    arguments = ["--output", str(tmp_path / "run.jsonl"), "--scheme", "bf16", *SMALL, "--task", "world/document"]
    result = accuracy(*arguments, "--baseline", str(tmp_path / baseline), "--gate=worse", "--gate-complete")
    assert result.status == pytest.ExitCode.TESTS_FAILED
    assert "gate failed" in result.shown


def test_the_gate_against_bf16_tells_a_good_scheme_from_a_bad_one(small_run: Path) -> None:
    result = quantsuite("gate", str(small_run), "--baseline", "bf16")
    assert result.status == 1
    failing = [line for line in result.shown.splitlines() if "worse" in line]
    assert any("int3-tensor" in line for line in failing)
    assert not any("int8-row" in line for line in failing)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "No such file"),
        ("{", "is not a run file"),
        ('{"schema_version": 1, "records": []}', "has schema version 1"),
        ('{"schema_version": 2}\n{"value": 3}', "is not a run file"),
    ],
)
def test_a_bad_run_file_is_named(content: str | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    if content is not None:
        path.write_text(content)
    result = quantsuite("report", str(path))
    assert result.status == 2
    assert str(path) in result.shown and message in result.shown


def test_a_margin_of_the_command_line_decides_the_gate(small_run: Path, tmp_path: Path) -> None:
    output = edited(small_run, tmp_path / "run.jsonl", lambda record: record)
    arguments = ["--scheme", "int3-tensor", "--output", str(output), *SMALL, "--baseline", "bf16"]
    assert "gate failed" in accuracy(*arguments, "--gate=worse").shown
    wide = accuracy(*arguments, "--accuracy-margin", "1", "--perplexity-margin", "9", "--gate=worse")
    assert "gate passed" in wide.shown and wide.status == 0
    wrong = accuracy(*arguments, "--accuracy-margin", "-1")
    assert wrong.status == pytest.ExitCode.USAGE_ERROR and "margin '-1' is not a number from 0" in wrong.shown


def test_a_cell_measured_under_two_conditions_is_not_reported_as_one(small_run: Path, tmp_path: Path) -> None:
    def of_another_torch(record: Record) -> Record:
        versions = {**record.environment.versions, "torch": "9.9"}
        return msgspec.structs.replace(
            record, environment=msgspec.structs.replace(record.environment, versions=versions)
        )

    other = edited(small_run, tmp_path / "other.jsonl", of_another_torch)
    result = quantsuite("report", str(small_run), str(other))
    assert result.status == 2
    assert "torch is 9.9, not 2" in result.shown and "Make a report of each run" in result.shown
