"""The example of a kernel of one's own, from a scratch project with the wheel: its checks, and a model on it."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from meta_tests.wheels import ROOT, run_python
from quantsuite.reading import read_run

EXAMPLE = ROOT / "examples" / "kernel" / "my_kernel.py"
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(site: Path, tmp_path: Path) -> Run:
    """``python -m quantsuite run`` in a scratch folder that holds the example."""
    shutil.copy(EXAMPLE, tmp_path)
    own = ("--kernel", "./my_kernel.py", "-p", "no:cacheprovider")
    return lambda *arguments: run_python(tmp_path, "quantsuite", "run", *arguments, *own, path=(site,))


def model(run: Run, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run("--execution", "real", "--limit", "8", "--task", "world/document", "--output", "run.jsonl", *arguments)


def test_the_example_passes_the_checks(run: Run, tmp_path: Path) -> None:
    result = run("conformance")
    assert result.returncode == 0, result.stdout + result.stderr
    properties = read_run(tmp_path / "reports" / "numerics.jsonl").properties
    assert {found.contestant for found in properties} == {"my-int8-row"}
    not_applicable = {found.property for found in properties if found.outcome == "not applicable"}
    assert not_applicable <= {"longest_integer_sum", "product_of_codes_is_exact"}


def test_a_model_runs_on_the_example(run: Run, tmp_path: Path) -> None:
    result = model(run, "--scheme", "int8-row")
    assert result.returncode == 0, result.stdout + result.stderr
    reference, quantized = read_run(tmp_path / "run.jsonl").records
    assert (reference.subject.kernel, quantized.subject.kernel) == ("", "my-int8-row")
    assert quantized.value == pytest.approx(reference.value, rel=0.01)


def test_a_kernel_that_multiplies_wrongly_changes_the_model(run: Run, tmp_path: Path) -> None:
    """So that it is the kernel that the model runs on."""
    place = tmp_path / "my_kernel.py"
    place.write_text(place.read_text().replace("* packed.scale", "* 1.2 * packed.scale"))
    model(run, "--scheme", "int8-row")
    reference, quantized = read_run(tmp_path / "run.jsonl").records
    assert quantized.value > 1.02 * reference.value


def test_schemes_that_it_does_not_claim_are_cells_with_a_reason(run: Run, tmp_path: Path) -> None:
    model(run, "--scheme", "all", "-k", "bf16 or int8-row or fp8-row")
    found = {record.subject.scheme: record for record in read_run(tmp_path / "run.jsonl").records}
    assert found["int8-row"].measured and found["fp8-row"].outcome == "unsupported"
    assert "my-int8-row claims int8-row" in found["fp8-row"].reason


@pytest.mark.parametrize(
    ("change", "arguments", "line"),
    [
        (("", ""), ("--scheme", "fp8-row"), "fp8-row: no kernel that was named implements it; my-int8-row claims"),
        (('"bfloat16"', '"float16"'), ("--scheme", "int8-row"), "takes no bfloat16; it takes float32, float16"),
        (("takes_bias", "1 / 0\ntakes_bias"), ("--scheme", "int8-row"), "my_kernel.py: ZeroDivisionError: division"),
    ],
)
def test_what_was_named_and_cannot_run_ends_the_run_with_one_line(
    run: Run, tmp_path: Path, change: tuple[str, str], arguments: tuple[str, ...], line: str
) -> None:
    place = tmp_path / "my_kernel.py"
    place.write_text(place.read_text().replace(*change))
    result = model(run, *arguments)
    assert result.returncode == pytest.ExitCode.USAGE_ERROR
    (error,) = (text for text in result.stderr.splitlines() if text)
    assert line in error
