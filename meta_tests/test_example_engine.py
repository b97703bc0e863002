"""The example of an engine of one's own works as a package beside the installed suite, and agrees with the built-in."""

from __future__ import annotations

import importlib.util
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from meta_tests.test_other_projects import plugin
from meta_tests.wheels import ROOT, run_python
from quantsuite.engine import open_engine
from quantsuite.evaluate import data
from quantsuite.evaluate.drift import token_drift
from quantsuite.evaluate.windows import document_items
from quantsuite.reading import read_run
from quantsuite.scheme import REFERENCE

EXAMPLE = ROOT / "examples" / "engine" / "plain_engine.py"
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(site: Path, tmp_path: Path) -> Run:
    """``python -m quantsuite run`` in a scratch folder, where a package ``mine`` offers the example."""
    packages = plugin(
        tmp_path / "site", "mine", EXAMPLE.read_text(), group="quantsuite.engines", attribute=":PlainBackend"
    )
    common = ("--limit", "4", "--output", "run.json", "-p", "no:cacheprovider")
    return lambda *arguments: run_python(tmp_path, "quantsuite", "run", *arguments, *common, path=(packages, site))


def test_the_example_runs_from_a_package_by_its_name(run: Run, tmp_path: Path) -> None:
    result = run("--engine", "mine", "--scheme", "bf16")
    assert result.returncode == 0, result.stdout + result.stderr
    records = read_run(tmp_path / "run.json").records
    assert len(records) == 5
    assert [record.task.name for record in records if not record.measured] == ["layers/in-place"]
    assert {record.subject.engine for record in records} == {"mine"}
    assert {record.environment.versions["mine"] for record in records} == {"1.0"}


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (
            ("--engine", "mine", "--scheme", "int8-row"),
            "measured on tiny: the engine plain quantizes nothing",
        ),
        (("--engine", "min"), "unknown engine 'min'; did you mean 'mine'? known: mine, transformers"),
    ],
)
def test_what_an_engine_cannot_do_ends_the_run_with_one_line(run: Run, arguments: tuple[str, ...], line: str) -> None:
    result = run(*arguments)
    assert result.returncode == pytest.ExitCode.USAGE_ERROR
    (error,) = (text for text in result.stderr.splitlines() if text)
    assert line in error


def test_the_example_and_the_built_in_engine_predict_alike() -> None:
    """Each batches on its own: only the order of float32 sums differs."""
    spec = importlib.util.spec_from_file_location("plain_engine", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    backend = module.PlainBackend("tiny", device="cpu", dtype="fp32")
    documents = [data.Document(text=row["text"]) for row in data.world_documents()[:3]]
    items = document_items(backend.tokenizer, documents, max_length=100, units=lambda text, tokens: tokens)
    with (
        backend.engine(REFERENCE, None) as plain,
        open_engine("transformers", "tiny", REFERENCE, execution=None, device="cpu", dtype="fp32") as built_in,
    ):
        found = [token for text in token_drift(built_in, plain, items) for token in text]
    assert 0 < max(abs(token.delta_p) for token in found) < 1e-4
    assert max(token.kl for token in found) < 1e-6
