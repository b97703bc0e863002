"""What a person sees of a run, and how it ends when something in it fails."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from meta_tests.checkpoints import PLAIN, save_checkpoint
from meta_tests.command import ROOT, accuracy
from quantsuite.loaded import LoadedModel
from quantsuite.reading import read_run
from quantsuite.scheme import Variant
from quantsuite.session import Session

SMALL = ["--limit", "12", "--device", "cpu", "--task", "world/document"]
FEW = [*SMALL, "--scheme", "int8-row,int8-g128"]


def lines_of(shown: str, start: str) -> list[str]:
    return [line for line in shown.splitlines() if line.startswith(start)]


def test_each_scheme_is_one_line_as_it_finishes_and_nothing_is_wider_than_the_terminal(tmp_path: Path) -> None:
    result = accuracy(*FEW, "--output", str(tmp_path / "run.jsonl"))
    assert result.status == 0, result.shown
    for label in ("bf16", "int8-row-simulated", "int8-row-real", "int8-g128-simulated", "int8-g128-real"):
        (line,) = lines_of(result.shown, f"{label} ")[:1]
        assert re.search(r"\d s$", line), line
        if label != "bf16":
            assert re.search(r"(ok|worse|undecided) +[+-]\d+\.\d+ \[[+-]\d+\.\d+, [+-]\d+\.\d+\] ln PPL", line), line
    assert "test_perplexity.py" not in result.shown
    assert "unquantized: 13.6 % of the parameters (embeddings, norms" in result.shown
    body = result.shown[result.shown.index("collected") :].splitlines()
    assert [line for line in body if len(line) > 80 and str(tmp_path) not in line] == []


def test_verbose_runs_name_every_test(tmp_path: Path) -> None:
    result = accuracy(*SMALL, "--scheme", "bf16", "--output", str(tmp_path / "run.jsonl"), "-v")
    assert "test_perplexity[world/document-bf16] PASSED" in result.shown


def test_a_run_without_a_terminal_reporter_measures_too(tmp_path: Path) -> None:
    result = accuracy(*SMALL, "--scheme", "bf16", "--output", str(tmp_path / "run.jsonl"), "-p", "no:terminal")
    assert result.status == 0, result.shown
    assert len(read_run(tmp_path / "run.jsonl").records) == 1


def test_records_of_an_earlier_run_are_counted(tmp_path: Path) -> None:
    arguments = [*SMALL, "--output", str(tmp_path / "run.jsonl"), "--scheme"]
    assert "reused" not in accuracy(*arguments, "int8-row").shown
    result = accuracy(*arguments, "int8-row,int8-g128")
    assert "reused:  3 of 5 records of an earlier run" in result.shown
    assert [line.endswith(", reused") for line in lines_of(result.shown, "int8-")] == [True, True, False, False]
    assert "reused" not in accuracy(*arguments, "int8-row", "--fresh").shown


def fail_at(monkeypatch: pytest.MonkeyPatch, label: str, error: BaseException) -> None:
    measure = Session.measure

    def failing(self: Session, cell, test):
        if cell.label == label:
            raise error
        return measure(self, cell, test)

    monkeypatch.setattr(Session, "measure", failing)


def test_an_interrupted_run_says_how_to_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fail_at(monkeypatch, "int8-g128-simulated", KeyboardInterrupt())
    result = accuracy(*FEW, "--output", str(tmp_path / "run.jsonl"))
    assert result.status == pytest.ExitCode.INTERRUPTED
    assert "interrupted after 3 of 5 cells: repeat the command to go on" in result.shown
    assert len(read_run(tmp_path / "run.jsonl").records) == 3


def test_a_cell_that_fails_is_one_line_and_costs_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fail_at(monkeypatch, "int8-row-real", RuntimeError("out of memory\nwith details"))
    result = accuracy(*FEW, "--output", str(tmp_path / "run.jsonl"))
    assert result.status == pytest.ExitCode.TESTS_FAILED
    message = "int8-row-real         error: RuntimeError: out of memory"
    assert message in result.shown and "Traceback" not in result.shown and "session.py" not in result.shown
    outcomes = {record.subject.label: record.outcome for record in read_run(tmp_path / "run.jsonl").records}
    assert outcomes.pop("int8-row-real") == "error" and set(outcomes.values()) == {"passed"}
    whole = accuracy(*FEW, "--output", str(tmp_path / "run.jsonl"), "--full-trace")
    assert "with details" in whole.shown


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with K = 64 and 96."""
    return save_checkpoint(tmp_path_factory.mktemp("narrow") / "model", PLAIN["qwen3-tied"])


def test_of_all_schemes_those_that_do_not_fit_are_cells_with_their_reason(narrow: Path, tmp_path: Path) -> None:
    result = accuracy(*SMALL, "--model", str(narrow), "--execution", "real", "--output", str(tmp_path / "run.jsonl"))
    assert result.status == 0, result.shown
    records = {record.subject.scheme: record for record in read_run(tmp_path / "run.jsonl").records}
    assert records["int8-row"].measured and records["fp8-tensor"].measured
    assert {records[f"int8-g{size}"].outcome for size in (64, 128, 256, 512)} == {"unsupported"}
    assert "mlp.down_proj: group size 64 does not divide K=96" in records["int8-g64"].reason
    assert "self_attn.q_proj: group size 128 does not divide K=64" in records["int8-g128"].reason
    assert "n/a: model.layers.0." in result.shown


def test_a_scheme_that_was_named_and_does_not_fit_ends_the_run(narrow: Path, tmp_path: Path) -> None:
    output = tmp_path / "run.jsonl"
    result = accuracy(*SMALL, "--model", str(narrow), "--scheme", "all,int8-g128", "--output", str(output))
    assert result.status == pytest.ExitCode.USAGE_ERROR
    assert "int8-g128 cannot be measured on" in result.shown and "K=64" in result.shown
    assert not output.exists()


def test_what_only_one_execution_supports_is_measured_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    misfit = LoadedModel.misfit

    def no_unit(self: LoadedModel, variant: Variant) -> str | None:
        return "no such unit" if variant.execution == "real" else misfit(self, variant)

    monkeypatch.setattr(LoadedModel, "misfit", no_unit)
    arguments = [*SMALL, "--scheme", "int8-row", "--output", str(tmp_path / "run.jsonl")]
    assert accuracy(*arguments).status == 0
    outcomes = {record.subject.label: record.outcome for record in read_run(tmp_path / "run.jsonl").records}
    assert outcomes == {"bf16": "passed", "int8-row-simulated": "passed", "int8-row-real": "unsupported"}
    assert accuracy(*arguments, "--execution", "real").status == pytest.ExitCode.USAGE_ERROR


def test_a_run_that_measured_nothing_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every cell that was selected is one that no device supports."""
    monkeypatch.setattr(LoadedModel, "misfit", lambda model, variant: variant.execution and "no such unit")
    output = ["--output", str(tmp_path / "run.jsonl")]
    result = accuracy(*SMALL, *output, "-k", "int8-row")
    assert result.status == pytest.ExitCode.TESTS_FAILED
    assert "nothing was measured" in result.shown


def test_one_item_is_enough_to_report_and_too_few_to_decide(tmp_path: Path) -> None:
    arguments = ["--limit", "1", "--device", "cpu", "--scheme", "int8-row", "--output", str(tmp_path / "run.jsonl")]
    result = accuracy(*arguments)
    assert result.status == 0, result.shown
    assert len([record for record in read_run(tmp_path / "run.jsonl").records if record.measured]) == 16
    assert "too few documents: 1, an interval takes 10; raise --limit" in " ".join(result.shown.split())


def test_under_xdist_each_worker_has_its_share_of_the_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    output = tmp_path / "run.jsonl"
    accuracy(*SMALL, "--scheme", "bf16", "--output", str(output), "-n", "2")
    threads = {record.environment.threads for record in read_run(output).records}
    assert threads == {max(1, (os.cpu_count() or 1) // 2)}


def test_under_xdist_nothing_is_lost_and_what_needs_all_cells_runs(tmp_path: Path) -> None:
    result = accuracy(*FEW, "--output", str(tmp_path / "run.jsonl"), "-n", "2", "-rA")
    assert result.status == 0, result.shown
    assert len([record for record in read_run(tmp_path / "run.jsonl").records if record.measured]) == 5
    test = "test_requirements.py::test_requirement[real-equals-simulated-world/document-int8-row-real-vs-"
    assert f"PASSED tests_accuracy/{test}int8-row-simulated]" in result.shown
    assert len(lines_of(result.shown, "int8-")) >= 4


@pytest.mark.parametrize("arguments", [["--model", "./nowhere"], ["--scheme", "int8-g96"], ["--device", "abacus"]])
def test_under_xdist_what_makes_a_run_impossible_is_one_line(arguments: list[str], tmp_path: Path) -> None:
    result = accuracy(*SMALL, *arguments, "--output", str(tmp_path / "run.jsonl"), "-n", "2")
    assert result.status == pytest.ExitCode.USAGE_ERROR, result.shown
    (line,) = lines_of(result.shown, "ERROR: ")
    assert arguments[1] in line and "INTERNALERROR" not in result.shown
    assert not (tmp_path / "run.jsonl").exists()


def test_a_terminal_shows_a_bar_of_the_cell(tmp_path: Path) -> None:
    shown = on_a_terminal("tests_accuracy", *SMALL, "--scheme", "bf16", "--output", str(tmp_path / "run.jsonl"))
    assert re.search(r"bf16 world/document \(1 left\): +\d+%\|.*\d/12 \[\d\d:\d\d<", shown), shown
    assert re.search(r"\nbf16 +document", re.sub(r"[^\n]*\r", "", shown.replace("\r\n", "\n"))), shown


def on_a_terminal(*arguments: str) -> str:
    """What pytest writes to a pseudo-terminal of 80 columns."""
    controller, terminal = pty.openpty()
    environment = {**os.environ, "COLUMNS": "80", "TERM": "xterm", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments]
    with subprocess.Popen(command, cwd=ROOT, stdout=terminal, stderr=terminal, env=environment):
        os.close(terminal)
        return read_all(lambda: os.read(controller, 4096))


def read_all(read: Callable[[], bytes]) -> str:
    chunks = []
    while True:
        try:
            chunk = read()
        except OSError:  # Linux ends a terminal so.
            chunk = b""
        if not chunk:
            return b"".join(chunks).decode(errors="replace")
        chunks.append(chunk)


def test_no_other_library_speaks_first(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "pytest",
        "tests_accuracy",
        *SMALL,
        "--scheme",
        "int8-row",
        "-p",
        "no:cacheprovider",
    ]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    output = ["--output", str(tmp_path / "run.jsonl")]
    result = subprocess.run([*command, *output], cwd=ROOT, capture_output=True, text=True, env=environment)
    assert result.stderr == ""
    assert result.stdout.startswith("=") and "warnings summary" not in result.stdout
