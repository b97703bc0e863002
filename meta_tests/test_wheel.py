"""What the wheel holds, and that it is enough for the whole job from any folder."""

from __future__ import annotations

import zipfile
from pathlib import Path

from meta_tests.wheels import ROOT, run_python
from quantsuite.reading import read_run

DATA = {
    "quantsuite/contestants/known_failures.toml",
    "quantsuite/kernels/table.toml",
    "quantsuite/reporting/templates/report.html.j2",
    "quantsuite/reporting/templates/report.md.j2",
    "quantsuite/reporting/templates/style.css.j2",
    "quantsuite/reporting/templates/words.j2",
    "quantsuite/requirements/any_model.toml",
    "quantsuite/requirements/shipped.toml",
    "quantsuite/tiny/baselines/tiny.jsonl",
    "quantsuite/tiny/model/config.json",
    "quantsuite/tiny/model/generation_config.json",
    "quantsuite/tiny/model/model.safetensors",
    "quantsuite/tiny/model/tokenizer.json",
    "quantsuite/tiny/model/tokenizer_config.json",
    "quantsuite/tiny/model/training.json",
}


def test_the_wheel_holds_the_package_and_these_data(wheel: Path) -> None:
    tasks = {str(path.relative_to(ROOT)) for path in (ROOT / "quantsuite/tasks").rglob("*.toml")}
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "quantsuite").rglob("*.py")}
    assert held == modules | tasks | DATA


def test_accuracy_runs_from_any_folder_with_the_embedded_models_baseline(site: Path, tmp_path: Path) -> None:
    arguments = ["--scheme", "bf16", "--task", "world/document", "--output", "run.jsonl", "-p", "no:cacheprovider"]
    result = run_python(tmp_path, "pytest", "--pyargs", "quantsuite.accuracy", *arguments, "--gate=worse", path=(site,))
    assert "world/document" in result.stdout, result.stdout + result.stderr
    assert "gate passed: 1 of 1 cells" in result.stdout and "99 of 100 cells; --gate-complete" in result.stdout
    (record,) = read_run(tmp_path / "run.jsonl").records
    assert record.measured and str(site) not in record.test
    again = run_python(tmp_path, "quantsuite", "run", *arguments, path=(site,))
    assert again.returncode == 0, again.stdout + again.stderr
    assert read_run(tmp_path / "run.jsonl").records[0].created == record.created


def test_numerics_run_from_any_folder_with_the_known_failures(site: Path, tmp_path: Path) -> None:
    arguments = ["-k", "ours-codes and int8-row and product_of_zeros or torchao-float8 and product_of_zeros"]
    result = run_python(tmp_path, "quantsuite", "run", "numerics", *arguments, "-p", "no:cacheprovider", path=(site,))
    assert result.returncode == 0, result.stdout + result.stderr
    outcomes = {found.contestant: found.outcome for found in read_run(tmp_path / "reports/numerics.jsonl").properties}
    assert outcomes["ours-codes"] == "exact"
    assert outcomes["torchao-float8-weight-only"] == "known failure"
