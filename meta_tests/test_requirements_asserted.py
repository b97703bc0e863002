"""A run asserts requirements: its own, or those of a file; alone and under xdist."""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec
import pytest

from meta_tests.command import accuracy, quantsuite
from quantsuite.reading import read_run
from quantsuite.records import Record
from quantsuite.runfile import write_run

SMALL = ["--limit", "20", "--execution", "simulated", "--device", "cpu", "--task", "world/document,world-mmlu/direct"]
PLANTED = "int3-tensor"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run file of bf16, INT8 per row and INT3 per tensor on a few items."""
    output = tmp_path_factory.mktemp("run") / "run.jsonl"
    result = accuracy("--scheme", f"int8-row,{PLANTED}", "--output", str(output), *SMALL)
    assert result.status == 0, result.shown
    return output


def in_one_line(shown: str) -> str:
    return " ".join(shown.split())


def rows(folder: Path, required: str = 'loss = "at most 5 ln PPL"', more: str = "", model: str = "tiny") -> str:
    """A file with one row."""
    path = folder / "mine.toml"
    path.write_text(f'[mine]\nmodel = "{model}"\nscheme = "w8"\nreason = "I say so"\n{required}\n{more}\n')
    return str(path)


def again(run: Path, tmp_path: Path, *arguments: str, scheme: str = "int8-row"):
    """A run that reuses the records of another."""
    shutil.copyfile(run, tmp_path / "run.jsonl")
    return accuracy("--scheme", scheme, "--output", str(tmp_path / "run.jsonl"), *SMALL, *arguments)


def with_planted_loss(records: list[Record]) -> list[Record]:
    """INT3 per tensor under the name of INT8 per row."""
    by_key = {record.key: record for record in records}
    return [
        msgspec.structs.replace(record, value=other.value, details=other.details, items=other.items)
        for record in records
        for other in [by_key[record.key._replace(scheme=PLANTED)] if record.subject.scheme == "int8-row" else record]
    ]


def test_a_bare_run_fails_on_a_planted_loss_by_the_name_of_its_row(run: Path, tmp_path: Path) -> None:
    planted = tmp_path / "planted.jsonl"
    write_run(planted, with_planted_loss(read_run(run).records))
    result = again(planted, tmp_path)
    assert result.status == pytest.ExitCode.TESTS_FAILED
    assert "test_requirement[w8-keeps-perplexity-world/document-int8-row-simulated]" in result.shown
    assert "required at most 0.002 ln PPL: without outliers" in in_one_line(result.shown)


def test_a_row_that_is_missed_fails_the_run(run: Path, tmp_path: Path) -> None:
    missed = again(run, tmp_path, "--requirements", rows(tmp_path, 'value = "at most 1.5 perplexity"'))
    assert missed.status == pytest.ExitCode.TESTS_FAILED and "[mine-world/document-int8-row-simulated]" in missed.shown
    met = again(run, tmp_path, "--requirements", rows(tmp_path, 'value = "at most 3 perplexity"'))
    assert met.status == 0 and "undecided: " not in met.shown


@pytest.mark.parametrize(("undecided", "status"), [("fail", pytest.ExitCode.TESTS_FAILED), ("pass", 0)])
def test_undecided_is_shown_and_fails_where_the_row_says_so(
    undecided: str, status: int, run: Path, tmp_path: Path
) -> None:
    more = f'undecided = "{undecided}"\ntask = "world-mmlu"'
    result = again(run, tmp_path, "--requirements", rows(tmp_path, 'loss = "at most 1 point"', more))
    assert result.status == status, result.shown
    assert "undecided by 20 questions, about" in in_one_line(result.shown)
    assert ("undecided: mine: int8-row-simulated" in result.shown) == (undecided == "pass")


def test_a_row_on_no_cell_is_skipped_with_a_reason(run: Path, tmp_path: Path) -> None:
    result = again(run, tmp_path, "--requirements", rows(tmp_path, more='task = "wikitext2"'), "-rs")
    assert result.status == 0 and "mine: no task of this run is wikitext2" in in_one_line(result.shown)


def test_a_requirement_without_its_cells_is_skipped(run: Path, tmp_path: Path) -> None:
    result = again(run, tmp_path, "--requirements", rows(tmp_path), "-k", "mine or direct", "-rs")
    assert result.status == 0 and "world/document was not run with this test" in in_one_line(result.shown)


def test_of_a_model_without_rows_the_summary_says_what_it_is_held_to(run: Path, tmp_path: Path) -> None:
    result = again(run, tmp_path, "--requirements", rows(tmp_path, model="other"))
    assert result.status == 0 and "no requirements for tiny: rows are of other; held to" in in_one_line(result.shown)
    assert "no requirements" not in again(run, tmp_path).shown


def test_a_file_that_is_refused_ends_the_run_before_anything_is_measured(tmp_path: Path) -> None:
    output = tmp_path / "run.jsonl"
    file = rows(tmp_path, 'lose = "at most 1 point"')
    for xdist in ([], ["-n", "2"]):
        result = accuracy("--scheme", "bf16", "--output", str(output), *SMALL, "--requirements", file, *xdist)
        assert result.status == pytest.ExitCode.USAGE_ERROR and not output.exists()
        assert "row mine: unknown key 'lose'; did you mean 'loss'?" in result.shown


def test_under_xdist_requirements_are_asserted_of_what_all_workers_measured(run: Path, tmp_path: Path) -> None:
    arguments = ["-n", "2", "-rA", "--requirements"]
    met = again(run, tmp_path, *arguments, rows(tmp_path, 'value = "at most 3 perplexity"'))
    name = "tests_accuracy/test_requirements.py::test_requirement[mine-world/document-int8-row-simulated]"
    assert met.status == 0 and f"PASSED {name}" in met.shown, met.shown
    missed = again(run, tmp_path, *arguments, rows(tmp_path, 'value = "at most 1.5 perplexity"'))
    assert missed.status == pytest.ExitCode.TESTS_FAILED and f"FAILED {name}" in missed.shown


def test_a_file_is_found_from_the_folder_that_the_run_is_started_in(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows(tmp_path, 'value = "at most 1.5 perplexity"')
    shutil.copyfile(run, tmp_path / "run.jsonl")
    monkeypatch.chdir(tmp_path)
    options = ["--scheme", "int8-row", "--output", "run.jsonl", "--requirements", "mine.toml"]
    result = quantsuite("run", *options, *SMALL)
    assert result.status == pytest.ExitCode.TESTS_FAILED and "required at most 1.5 perplexity: I say so" in result.shown
