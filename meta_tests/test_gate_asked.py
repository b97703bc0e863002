"""What of a baseline a gate compares: all that the run was asked for, and with ``--gate-complete`` all."""

from __future__ import annotations

from pathlib import Path

import pytest

from meta_tests import factories
from meta_tests.command import accuracy, quantsuite
from meta_tests.gated import CHOICES, WORSE, cell, failures, replaced
from quantsuite.gate import gate
from quantsuite.margins import MODES, Mode
from quantsuite.records import Record
from quantsuite.runfile import write_run

ABSENT = "the baseline has this cell, the run has not; run it, or remove it in review"
SCHEMES = ["bf16", "int8-row", "fp8-row", "fp8-g128", "fp8-g64"]
BASELINES = [cell(CHOICES, task, scheme=name) for name in SCHEMES for task in (factories.DIRECT, factories.GENERATE)]
"""Five schemes under two tasks."""


def of(*schemes: str, tasks: tuple[str, ...] = ("direct", "generate")) -> list[Record]:
    return [
        record
        for record in BASELINES
        if record.subject.scheme in schemes and record.task.name.partition("/")[2] in tasks
    ]


@pytest.mark.parametrize("mode", MODES)
def test_an_absent_cell_fails_a_complete_gate(mode: Mode) -> None:
    [(found, reason)] = failures(gate(of("int8-row"), of("int8-row", "bf16")[1:], mode=mode, complete=True))
    assert (found, reason) == ("absent", ABSENT)


@pytest.mark.parametrize("mode", MODES)
def test_schemes_that_were_not_asked_for_are_left_out_and_told(mode: Mode) -> None:
    result = gate(of("int8-row"), BASELINES, mode=mode)
    assert result.passed and len(result.checks) == 2
    assert "not run: 4 of 5 schemes (bf16, fp8-row-simulated, fp8-g128-simulated, ...): 8 of 10 cells; " in str(
        result.notes
    )


def test_a_task_that_was_not_asked_for_is_left_out_and_told() -> None:
    result = gate(of(*SCHEMES, tasks=("direct",)), BASELINES)
    assert result.passed
    assert "not run: 1 of 2 tasks (world-mmlu/generate): 5 of 10 cells; --gate-complete asks for all" in result.notes


def test_an_execution_that_was_not_asked_for_is_left_out_and_told() -> None:
    real = [replaced(record, subject__execution="real") for record in of("int8-row")]
    result = gate(of("int8-row"), [*of("int8-row"), *real])
    assert result.passed and "1 of 2 schemes (int8-row-real): 2 of 4 cells" in str(result.notes)


def test_a_whole_run_has_nothing_to_tell_of() -> None:
    assert not [note for note in gate(BASELINES, BASELINES).notes if note.startswith("not run")]


@pytest.mark.parametrize("lost", range(10))
def test_a_cell_lost_from_a_run_of_several_tasks_and_schemes_fails(lost: int) -> None:
    run = [record for index, record in enumerate(BASELINES) if index != lost]
    assert failures(gate(run, BASELINES)) == [("absent", ABSENT)]


def test_a_cell_that_was_asked_for_fails_though_nothing_in_the_run_is_of_its_scheme() -> None:
    asked = {record.cell[:4] for record in of("int8-row", "fp8-row")}
    assert [status for status, _ in failures(gate(of("int8-row"), BASELINES, asked=asked))] == ["absent"] * 2


def test_a_cell_that_was_skipped_counts_as_asked_for() -> None:
    skipped = cell(None, scheme="fp8-row", outcome="skipped", reason="no dataset")
    statuses = [status for status, _ in failures(gate([*of("int8-row"), skipped], BASELINES))]
    assert statuses == ["not measured", "absent"]


def test_a_cell_beyond_what_was_asked_for_is_compared_too() -> None:
    run = [*of("int8-row"), cell(WORSE, scheme="fp8-row")]
    result = gate(run, BASELINES, asked={record.cell[:4] for record in of("int8-row")})
    assert [status for status, _ in failures(result)] == ["worse"]


def test_another_model_of_a_baseline_file_was_not_asked_for() -> None:
    others = [replaced(record, subject__model="other") for record in BASELINES]
    assert gate(BASELINES, [*BASELINES, *others]).passed


@pytest.mark.parametrize("run", [[], [cell(CHOICES, scheme="int4-g128")]], ids=["no record", "none of the baseline's"])
def test_a_run_of_nothing_that_the_baseline_has_is_no_evidence(run: list[Record]) -> None:
    result = gate(run, BASELINES)
    assert not result.passed and "nothing was compared" in result.summary


def test_the_note_is_shown_beside_a_passed_gate_and_complete_fails(tmp_path: Path) -> None:
    run, baseline = tmp_path / "run.jsonl", tmp_path / "baseline.jsonl"
    write_run(run, of("int8-row"))
    write_run(baseline, BASELINES)
    part = quantsuite("gate", str(run), "--baseline", str(baseline))
    assert part.status == 0 and "not run: 4 of 5 schemes" in part.shown
    whole = quantsuite("gate", str(run), "--baseline", str(baseline), "--gate-complete")
    assert whole.status == 1 and "gate failed: 8 of 10 cells" in whole.shown


def test_a_run_file_with_a_torn_line_is_refused(tmp_path: Path) -> None:
    run, baseline = tmp_path / "run.jsonl", tmp_path / "baseline.jsonl"
    write_run(run, BASELINES)
    write_run(baseline, of("int8-row"))
    run.write_bytes(run.read_bytes()[:-40])
    result = quantsuite("gate", str(run), "--baseline", str(baseline))
    assert result.status == 2
    assert "the last line is not whole, a cell is lost; repeat the run" in result.shown


SMALL = ["--limit", "12", "--execution", "simulated", "--device", "cpu", "--task", "world-mmlu/direct"]


@pytest.fixture(scope="module")
def baseline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of bf16 and two schemes under one task."""
    path = tmp_path_factory.mktemp("baseline") / "baseline.jsonl"
    result = accuracy("--scheme", "int8-row,fp8-row", "--output", str(path), *SMALL)
    assert result.status == 0, result.shown
    return path


def gated(baseline: Path, folder: Path, *arguments: str):
    return accuracy(*SMALL, "--output", str(folder / "run.jsonl"), "--baseline", str(baseline), *arguments)


def test_pytest_compares_the_schemes_of_its_options(baseline: Path, tmp_path: Path) -> None:
    result = gated(baseline, tmp_path, "--scheme", "int8-row", "--gate=worse")
    assert result.status == 0, result.shown
    assert "gate passed: 2 of 2 cells" in result.shown
    assert "not run: 1 of 3 schemes (fp8-row-simulated): 1 of 3 cells" in result.shown


def test_pytest_asks_for_all_with_gate_complete(baseline: Path, tmp_path: Path) -> None:
    result = gated(baseline, tmp_path, "--scheme", "int8-row", "--gate=worse", "--gate-complete")
    assert result.status == 1 and "gate failed: 1 of 3 cells" in result.shown


@pytest.mark.parametrize("workers", [(), ("-n", "1")], ids=["one process", "xdist"])
def test_what_is_deselected_was_asked_for(workers: tuple[str, ...], baseline: Path, tmp_path: Path) -> None:
    result = gated(baseline, tmp_path, "--scheme", "int8-row,fp8-row", "--gate=worse", "-k", "bf16", *workers)
    assert result.status == 1 and "gate failed: 2 of 3 cells" in result.shown


@pytest.mark.parametrize("given", [(), ("--gate=worse", "--baseline", "bf16")], ids=["no gate", "against bf16"])
def test_gate_complete_without_a_baseline_is_refused(given: tuple[str, ...], tmp_path: Path) -> None:
    result = accuracy("--output", str(tmp_path / "run.jsonl"), "--gate-complete", *given)
    assert result.status == pytest.ExitCode.USAGE_ERROR
    assert "--gate-complete is of no effect" in result.shown
