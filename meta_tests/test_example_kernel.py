"""The example of a kernel of one's own: its checks and a model on it, from a scratch project with the wheel; and what
a run says of a kernel that cannot."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest

from meta_tests.command import Outcome, quantsuite
from meta_tests.wheels import ROOT, run_python
from quantsuite.reading import read_run
from quantsuite.records import Record

EXAMPLE = ROOT / "examples" / "kernel" / "my_kernel.py"
KERNEL = ("--kernel", "./my_kernel.py", "-p", "no:cacheprovider")
MODEL = ("--execution", "real", "--limit", "8", "--task", "world/document", "--output", "run.jsonl")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that holds the example, and that this process works in."""
    shutil.copy(EXAMPLE, tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run_changed(project: Path, change: tuple[str, str], *arguments: str) -> Outcome:
    """A run of a model on the example with a change."""
    place = project / "my_kernel.py"
    assert change[0] in place.read_text()
    place.write_text(place.read_text().replace(*change))
    return quantsuite("run", *MODEL, *KERNEL, *arguments)


def records(project: Path) -> dict[str, Record]:
    return {record.subject.scheme: record for record in read_run(project / "run.jsonl").records}


def test_the_example_passes_the_checks(project: Path, site: Path) -> None:
    result = run_python(project, "quantsuite", "run", "conformance", *KERNEL, path=(site,))
    assert result.returncode == 0, result.stdout + result.stderr
    properties = read_run(project / "reports" / "numerics.jsonl").properties
    assert {found.contestant for found in properties} == {"my-int8-row"}
    assert {found.property for found in properties if found.outcome == "not applicable"} == {
        "longest_integer_sum",
        "product_beyond_int32_indices",
        "product_of_activations_at_the_ends_of_a_dtype",
        "product_of_smallest_codes_is_exact",
        "product_of_uneven_groups",
        "training_is_inference",
    }


def test_a_model_runs_on_the_example(project: Path, site: Path) -> None:
    result = run_python(project, "quantsuite", "run", *MODEL, *KERNEL, "--scheme", "int8-row", path=(site,))
    assert result.returncode == 0, result.stdout + result.stderr
    found = records(project)
    assert (found["bf16"].subject.kernel, found["int8-row"].subject.kernel) == ("", "my-int8-row")
    assert found["int8-row"].value == pytest.approx(found["bf16"].value, rel=0.01)


def test_it_is_the_named_kernel_that_the_model_runs_on(project: Path) -> None:
    run_changed(project, ("* packed.scale", "* -packed.scale"), "--scheme", "int8-row")
    found = records(project)
    assert found["int8-row"].value > 2 * found["bf16"].value


def test_schemes_that_it_does_not_claim_are_cells_with_a_reason(project: Path) -> None:
    run_changed(project, ("", ""), "--scheme", "all", "-k", "bf16 or int8-row or fp8-row")
    found = records(project)
    assert found["int8-row"].measured and found["fp8-row"].outcome == "unsupported"
    assert "my-int8-row claims int8-row" in found["fp8-row"].reason


def test_a_kernel_that_would_multiply_in_no_cell_is_refused(project: Path) -> None:
    shutil.copy(project / "my_kernel.py", project / "twin.py")
    twin = (project / "twin.py").read_text().replace('"my-int8-row"', '"twin"')
    (project / "twin.py").write_text(twin)
    simulated = quantsuite("run", "--execution", "simulated", "--scheme", "int8-row", *KERNEL)
    second = run_changed(project, ("", ""), "--scheme", "int8-row", "--kernel", "./twin.py")
    assert (simulated.status, second.status) == (pytest.ExitCode.USAGE_ERROR,) * 2
    assert "--kernel ./my_kernel.py: my-int8-row multiplies in no cell of this run, where none does" in simulated.shown
    assert "--kernel ./twin.py: twin multiplies in no cell of this run, where my-int8-row does" in second.shown


def test_kernels_of_one_name_in_two_files_are_refused(project: Path) -> None:
    shutil.copy(project / "my_kernel.py", project / "twin.py")
    outcome = run_changed(project, ("", ""), "--scheme", "int8-row", "--kernel", "./twin.py")
    assert outcome.status == pytest.ExitCode.USAGE_ERROR
    assert "./twin.py: its kernel is named 'my-int8-row', as that of ./my_kernel.py is; rename one" in outcome.shown


def test_a_kernel_is_measured_anew_since_its_file_may_have_changed(project: Path) -> None:
    for change in (("", ""), ("* packed.scale", "* -packed.scale")):
        outcome = run_changed(project, change, "--scheme", "int8-row")
    assert "reused:  1 of 2" in outcome.shown
    assert records(project)["int8-row"].value > 2 * records(project)["bf16"].value


def test_a_record_holds_the_hash_of_the_kernel_s_file(project: Path) -> None:
    run_changed(project, ("", ""), "--scheme", "int8-row")
    hashes = {scheme: record.subject.kernel_sha256 for scheme, record in records(project).items()}
    assert hashes == {"bf16": "", "int8-row": hashlib.sha256(EXAMPLE.read_bytes()).hexdigest()}


@pytest.mark.parametrize(
    ("change", "scheme", "line"),
    [
        (("", ""), "fp8-row", "fp8-row: no kernel that was named implements it; my-int8-row claims int8-row"),
        (('"bfloat16"', '"float16"'), "int8-row", "my-int8-row takes no bfloat16; it takes float32, float16"),
        (("takes_bias", "1 / 0\ntakes_bias"), "int8-row", "my_kernel.py: ZeroDivisionError: division by zero"),
        (
            ('schemes = ("int8-row",)', 'operation, quantize, schemes = "quantize", print, ("int8-row",)'),
            "int8-row",
            "a model needs one of linear",
        ),
    ],
)
def test_what_was_named_and_cannot_run_ends_the_run_with_one_line(
    project: Path, change: tuple[str, str], scheme: str, line: str
) -> None:
    outcome = run_changed(project, change, "--scheme", scheme)
    assert outcome.status == pytest.ExitCode.USAGE_ERROR
    (error,) = (text for text in outcome.shown.splitlines() if text.startswith("ERROR: "))
    assert line in error


def test_a_kernel_that_gives_nan_is_named_with_the_engine(project: Path) -> None:
    result = run_changed(project, ("* packed.scale", "* float('nan') * packed.scale"), "--scheme", "int8-row")
    assert result.status == pytest.ExitCode.TESTS_FAILED
    reason = records(project)["int8-row"].reason
    assert "the engine transformers" in reason and "(products by the kernel my-int8-row)" in reason


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ((".to(x.dtype)\n\n\ndef unsupported", ".to(x.dtype)[..., :1]\n\n\ndef unsupported"), "returned a Tensor"),
        (("y + bias).to(x.dtype)", "y + bias)"), "of torch.float32, expected"),
        (
            ("* packed.scale", "/ (1 // 0) * packed.scale"),
            "raised ZeroDivisionError: integer division",
        ),
    ],
)
def test_a_product_that_is_none_names_the_kernel(project: Path, change: tuple[str, str], said: str) -> None:
    run_changed(project, change, "--scheme", "int8-row")
    reason = records(project)["int8-row"].reason
    assert reason.startswith("my-int8-row.linear of [") and said in reason
