"""The example of a metric of one's own: one file that runs, reports and gates know, and are lost without."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from meta_tests.wheels import ROOT, run_python

RUN = ("--task", "./brier.toml", "--scheme", "int8-row", "--execution", "real", "--limit", "40")
GATE = ("gate", "run.jsonl", "--baseline", "bf16")


@pytest.fixture(scope="module")
def project(site: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the example's files and a run of them."""
    folder = tmp_path_factory.mktemp("project")
    shutil.copytree(ROOT / "examples/metric", folder, dirs_exist_ok=True)
    result = run_python(
        folder, "quantsuite", "run", *RUN, "--output", "run.jsonl", "-p", "no:cacheprovider", path=(site,)
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return folder


def test_the_report_shows_its_value_unit_and_margin(project: Path, site: Path) -> None:
    result = run_python(project, "quantsuite", "report", "run.jsonl", "--metric", "./brier.py", path=(site,))
    assert result.returncode == 0, result.stdout + result.stderr
    page = (project / "reports/report.md").read_text()
    assert "world-mmlu/brier (lower is better)" in page and "Brier score by group" in page
    assert "Change from bf16, Brier score" in page and "0.01 Brier score" in page


@pytest.mark.parametrize(("margin", "status"), [("0.5", 0), ("0", 1)])
def test_the_gate_holds_it_to_its_margin(margin: str, status: int, project: Path, site: Path) -> None:
    chosen = ("--metric", "./brier.py:BRIER", "--margin", f"Brier score={margin}", "--mode", "strict")
    result = run_python(project, "quantsuite", *GATE, *chosen, path=(site,))
    assert result.returncode == status, result.stdout + result.stderr
    assert "gate passed: 1 of 1 cells compared" in result.stdout or "gate failed: 1 of 1 cells" in result.stdout


def test_a_run_goes_on_from_its_own_records_and_takes_them_for_a_baseline(project: Path, site: Path) -> None:
    shutil.copy(project / "run.jsonl", project / "baseline.jsonl")
    arguments = [*RUN, "--output", "run.jsonl", "--gate=strict", "--baseline", "baseline.jsonl"]
    result = run_python(project, "quantsuite", "run", *arguments, "-p", "no:cacheprovider", path=(site,))
    assert result.returncode == 0, result.stdout + result.stderr
    assert "2 of 2 records of an earlier run" in result.stdout and "gate passed: 2 of 2 cells" in result.stdout


@pytest.mark.parametrize("command", [("report", "run.jsonl"), GATE], ids=["report", "gate"])
def test_without_its_file_the_error_names_the_metric_and_the_way_out(
    command: tuple[str, ...], project: Path, site: Path
) -> None:
    result = run_python(project, "quantsuite", *command, path=(site,))
    assert result.returncode == 2 and result.stderr.count("\n") == 1
    assert "unknown metric 'Brier score'; known: perplexity" in result.stderr
    assert "one of your own is given by its file, --metric ./FILE.py" in result.stderr


def test_a_run_of_it_is_converted_with_its_file(project: Path, site: Path) -> None:
    result = run_python(
        project, "quantsuite", "convert", "run.jsonl", "new.jsonl", "--metric", "./brier.py", path=(site,)
    )
    assert (result.returncode, result.stdout) == (0, "new.jsonl: 2 records\n"), result.stderr
