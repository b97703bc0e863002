"""The command line: bad input, resumption, the gate, each in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from quantsuite.reading import read_run
from quantsuite.records import Record
from quantsuite.runfile import write_run

ROOT = Path(__file__).parent.parent
SMALL = ["--limit", "24", "--execution", "simulated", "--device", "cpu"]


def run(*arguments: str, module: str = "pytest") -> subprocess.CompletedProcess[str]:
    """Run the accuracy tests, or the module's own command, from the project's root."""
    command = [sys.executable, "-m", module, *(["tests_accuracy", "-q"] if module == "pytest" else []), *arguments]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "COLUMNS": "200"}
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)


@pytest.fixture(scope="module")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run file of bf16, INT8 per row and INT3 per tensor on a few items."""
    output = tmp_path_factory.mktemp("run") / "run.json"
    result = run("--scheme", "int8-row,int3-tensor", "--output", str(output), *SMALL)
    assert result.returncode == 0, result.stdout
    return output


def edited(source: Path, target: Path, change) -> Path:
    write_run(target, [change(record) for record in read_run(source).records])
    return target


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--scheme", "int9-row"], "unknown number format 'int9' in 'int9-row'; did you mean 'int"),
        (["--scheme", "int8-gx"], "unknown granularity 'gx'"),
        (["--scheme", ","], "names nothing"),
        (["--task", "mmlu/direkt"], "unknown task 'mmlu/direkt'; did you mean 'mmlu/direct'"),
        (["--limit", ""], "limit '' is not a number of items; use 0 for all"),
        (["--limit", "-3"], "limit '-3' is not a number of items; use 0 for all"),
        (["--execution", "fake"], "unknown execution 'fake'; use simulated or real"),
    ],
)
def test_bad_options_stop_the_run_with_their_message(arguments: list[str], message: str, tmp_path: Path) -> None:
    result = run(*arguments, "--output", str(tmp_path / "run.json"))
    assert result.returncode == pytest.ExitCode.USAGE_ERROR
    assert (result.stdout + result.stderr).count(message) == 1


def test_a_group_that_does_not_divide_is_named_with_its_layer(tmp_path: Path) -> None:
    output = tmp_path / "run.json"
    result = run("--scheme", "int8-g96", "--output", str(output), *SMALL)
    assert result.returncode == pytest.ExitCode.TESTS_FAILED
    failed = [record for record in read_run(output).records if record.subject.scheme.name == "int8-g96"]
    assert failed
    for record in failed:
        assert record.outcome == "error" and record.value is None
        assert "group size 96 does not divide K=512; use one of" in record.reason
        assert "q_proj" in record.reason


def test_an_unreachable_dataset_is_skipped_and_says_how_to_get_it(tmp_path: Path) -> None:
    output = tmp_path / "run.json"
    result = run("--task", "wikitext2/chunk512", "--wikitext", "no/such", "--scheme", "bf16", "--output", str(output))
    assert result.returncode == 0
    (record,) = read_run(output).records
    assert record.outcome == "skipped"
    assert "the folder of a local copy of the dataset" in record.reason


def test_what_a_device_cannot_run_is_a_cell_with_its_reason(tmp_path: Path) -> None:
    output = tmp_path / "run.json"
    static = "int8-row:int8-token-static"
    run("--scheme", static, "--execution", "real", "--limit", "8", "--output", str(output))
    records = [record for record in read_run(output).records if record.subject.scheme.name == static]
    assert {record.outcome for record in records} == {"unsupported"}
    assert all("drop -static" in record.reason for record in records)


def test_a_run_records_every_cell_with_its_provenance(small_run: Path) -> None:
    records = read_run(small_run).records
    assert len({record.cell for record in records}) == len(records) == 9
    for record in records:
        assert record.outcome == "passed" and record.measured
        assert len(record.items) == record.dataset.items == 24
        assert record.subject.model_sha256 and record.dataset.sha256 and record.environment.versions["torch"]
        assert record.dataset.seed == 42


def test_a_repeated_run_reuses_its_records_and_fresh_does_not(small_run: Path, tmp_path: Path) -> None:
    output = edited(small_run, tmp_path / "run.json", lambda record: msgspec.structs.replace(record, seconds=1234.5))
    arguments = ["--scheme", "int8-row", "--output", str(output), *SMALL]
    run(*arguments)
    reused = [record.seconds for record in read_run(output).records]
    assert reused == [1234.5] * 9
    run(*arguments, "--fresh")
    seconds = {record.subject.scheme.name: record.seconds for record in read_run(output).records}
    assert seconds.pop("int3-tensor") == 1234.5
    assert all(second < 1234.5 for second in seconds.values())
    assert list(tmp_path.iterdir()) == [output]


def with_other_weights(record: Record) -> Record:
    return msgspec.structs.replace(record, subject=msgspec.structs.replace(record.subject, model_sha256="other"))


def of_another_model(record: Record) -> Record:
    return msgspec.structs.replace(record, subject=msgspec.structs.replace(record.subject, model="other"))


def test_records_of_other_models_stay_in_the_run_file(small_run: Path, tmp_path: Path) -> None:
    output = edited(small_run, tmp_path / "run.json", of_another_model)
    others = read_run(output).records
    run("--scheme", "bf16", "--output", str(output), *SMALL)
    run("--scheme", "bf16", "--model", "./nowhere", "--output", str(output), *SMALL)
    records = read_run(output).records
    assert [record for record in records if record.subject.model == "other"] == others
    assert {record.subject.model for record in records if record.measured} == {"other", "tiny"}
    assert list(tmp_path.iterdir()) == [output]


def test_a_cell_that_ends_before_the_model_is_loaded_drops_no_others(small_run: Path, tmp_path: Path) -> None:
    output = edited(small_run, tmp_path / "run.json", lambda record: record)
    static = ["--scheme", "int8-row:int8-token-static", "--execution", "real", "--limit", "24", "--device", "cpu"]
    run(*static, "--output", str(output), "-k", "static")
    records = read_run(output).records
    assert [record for record in records if record.measured] == read_run(small_run).records
    assert {record.outcome for record in records if not record.measured} == {"unsupported"}


@pytest.mark.parametrize("options", [(), ("--fresh",)])
def test_what_a_run_replaces_is_set_aside(options: tuple[str, ...], small_run: Path, tmp_path: Path) -> None:
    output = edited(small_run, tmp_path / "run.json", with_other_weights)
    replaced = output.read_bytes()
    result = run("--scheme", "bf16", "--output", str(output), *SMALL, *options)
    assert {record.subject.scheme.name for record in read_run(output).records} == {"bf16"}
    (aside,) = set(tmp_path.iterdir()) - {output}
    assert aside.read_bytes() == replaced
    assert f"earlier: {aside}" in result.stdout.replace("\n", "")


def test_a_run_file_that_cannot_be_read_is_an_error_and_with_fresh_set_aside(tmp_path: Path) -> None:
    output = tmp_path / "run.json"
    output.write_text("{")
    arguments = ["--scheme", "bf16", "--output", str(output), *SMALL]
    result = run(*arguments)
    assert result.returncode == pytest.ExitCode.INTERRUPTED
    assert f"{output} is not a run file" in result.stdout
    run(*arguments, "--fresh")
    assert len(read_run(output).records) == 3
    (aside,) = set(tmp_path.iterdir()) - {output}
    assert aside.read_text() == "{"


def test_an_interrupted_run_keeps_what_it_finished(tmp_path: Path) -> None:
    output = tmp_path / "run.json"
    arguments = ["--scheme", "int8-row", "--output", str(output), *SMALL]
    run(*arguments, "-k", "document and bf16")
    (finished,) = read_run(output).records
    run(*arguments)
    records = read_run(output).records
    assert len(records) == 6
    assert finished.created in {record.created for record in records if record.cell == finished.cell}


def test_other_questions_are_measured_anew(small_run: Path, tmp_path: Path) -> None:
    output = edited(small_run, tmp_path / "run.json", lambda record: msgspec.structs.replace(record, seconds=1234.5))
    run("--scheme", "bf16", "--output", str(output), *SMALL, "--seed", "7", "--task", "world-mmlu/direct")
    record = next(r for r in read_run(output).records if r.cell[1:3] == ("world-mmlu/direct", "bf16"))
    assert record.seconds < 1234.5 and record.dataset.seed == 7


def test_the_gate_passes_a_run_against_itself(small_run: Path, tmp_path: Path) -> None:
    output, baseline = tmp_path / "run.json", tmp_path / "baseline.json"
    records = read_run(small_run).records
    write_run(baseline, [*records, *map(of_another_model, records)])
    scheme = ["--scheme", "int8-row,int3-tensor", "--output", str(output), *SMALL]
    result = run(*scheme, "--baseline", str(baseline), "--gate")
    assert result.returncode == 0, result.stdout
    assert "gate passed: 9 of 9 cells compared" in result.stdout


def as_int8_row(records: list[Record]) -> list[Record]:
    """INT3 per tensor under the name of INT8 per row: a planted regression."""
    by_cell = {record.cell: record for record in records}
    return [
        msgspec.structs.replace(record, value=other.value, details=other.details, items=other.items)
        for record in records
        if record.subject.scheme.name == "int8-row"
        for other in [by_cell[*record.cell[:2], "int3-tensor", "simulated"]]
    ]


def test_the_gate_fails_a_planted_regression(small_run: Path, tmp_path: Path) -> None:
    worse = tmp_path / "worse.json"
    write_run(worse, as_int8_row(read_run(small_run).records))
    baseline = tmp_path / "baseline.json"
    write_run(baseline, [r for r in read_run(small_run).records if r.subject.scheme.name == "int8-row"])
    result = run("gate", str(worse), "--baseline", str(baseline), module="quantsuite")
    assert result.returncode == 1
    assert "gate failed" in result.stdout and "worse" in result.stdout


def test_a_missing_baseline_is_an_error_before_anything_is_measured(tmp_path: Path) -> None:
    output, missing = tmp_path / "run.json", tmp_path / "missing.json"
    result = run("--scheme", "bf16", "--output", str(output), *SMALL, "--baseline", str(missing), "--gate=worse")
    assert result.returncode == pytest.ExitCode.USAGE_ERROR
    assert f"--gate: {missing}: No such file or directory" in result.stderr
    assert "copy a reviewed run file of the same command there" in result.stderr
    assert not output.exists()


def test_a_baseline_of_another_model_is_an_error_too(small_run: Path, tmp_path: Path) -> None:
    other = edited(small_run, tmp_path / "other.json", of_another_model)
    result = run("--scheme", "bf16", "--baseline", str(other), "--gate=worse")
    assert result.returncode == pytest.ExitCode.USAGE_ERROR
    assert f"--gate: {other} holds records of other, none of tiny" in result.stderr


@pytest.mark.parametrize("baseline", ["empty.json", "more.json"])
def test_the_gate_fails_without_a_whole_comparison(baseline: str, small_run: Path, tmp_path: Path) -> None:
    records = read_run(small_run).records
    write_run(tmp_path / "empty.json", [])
    write_run(tmp_path / "more.json", records)
    write_run(tmp_path / "run.json", records[:1])
    arguments = ["--output", str(tmp_path / "run.json"), "--scheme", "bf16", *SMALL, "--task", "world/document"]
    result = run(*arguments, "--baseline", str(tmp_path / baseline), "--gate=worse")
    assert result.returncode == pytest.ExitCode.TESTS_FAILED
    assert "gate failed" in result.stdout


def test_the_gate_against_bf16_tells_a_good_scheme_from_a_bad_one(small_run: Path) -> None:
    result = run("gate", str(small_run), "--baseline", "bf16", module="quantsuite")
    assert result.returncode == 1
    failing = [line for line in result.stdout.splitlines() if "worse" in line]
    assert any("int3-tensor" in line for line in failing)
    assert not any("int8-row" in line for line in failing)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "No such file"),
        ("{", "is not a run file"),
        ('{"schema_version": 0, "records": []}', "has schema version 0"),
        (json.dumps({"schema_version": 1, "records": [{"value": 3}]}), "is not a run file"),
    ],
)
def test_a_bad_run_file_is_named(content: str | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    if content is not None:
        path.write_text(content)
    result = run("report", str(path), module="quantsuite")
    assert result.returncode == 2
    assert str(path) in result.stderr and message in result.stderr


def test_a_margin_of_the_command_line_decides_the_gate(small_run: Path, tmp_path: Path) -> None:
    output = edited(small_run, tmp_path / "run.json", lambda record: record)
    arguments = ["--scheme", "int3-tensor", "--output", str(output), *SMALL, "--baseline", "bf16"]
    assert "gate failed" in run(*arguments, "--gate=worse").stdout
    wide = run(*arguments, "--accuracy-margin", "1", "--perplexity-margin", "9", "--gate=worse")
    assert "gate passed" in wide.stdout and wide.returncode == 0
    wrong = run(*arguments, "--accuracy-margin", "-1")
    assert wrong.returncode == pytest.ExitCode.USAGE_ERROR and "margin '-1' is not a number from 0" in wrong.stderr


def test_a_cell_measured_under_two_conditions_is_not_reported_as_one(small_run: Path, tmp_path: Path) -> None:
    def moved(record: Record) -> Record:
        return msgspec.structs.replace(record, environment=msgspec.structs.replace(record.environment, device="H200"))

    other = edited(small_run, tmp_path / "other.json", moved)
    result = run("report", str(small_run), str(other), module="quantsuite")
    assert result.returncode == 2
    assert "device is H200, not cpu. Make a report of each run" in result.stderr


def test_other_projects_parameters_of_the_same_name_are_left_alone(tmp_path: Path) -> None:
    test = "import pytest\n@pytest.mark.parametrize('cell', [1, 2])\ndef test(cell): pass\n"
    (tmp_path / "test_other.py").write_text(test)
    result = subprocess.run([sys.executable, "-m", "pytest", "-q"], cwd=tmp_path, capture_output=True, text=True)
    assert "2 passed" in result.stdout and "deselected" not in result.stdout


def test_records_are_collected_under_xdist(tmp_path: Path) -> None:
    pytest.importorskip("xdist")
    output = tmp_path / "run.json"
    run("--scheme", "int8-row", "--output", str(output), *SMALL, "-n", "2")
    assert len([record for record in read_run(output).records if record.measured]) == 6
