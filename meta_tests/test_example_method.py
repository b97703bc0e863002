"""The example of a method of one's own works from a folder that knows nothing but what the wheel installs."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from meta_tests.wheels import ROOT, run_python
from quantsuite.plan import Plan
from quantsuite.reading import read_run
from quantsuite.records import Record

QUIET = ("--task", "world/document", "--execution", "real", "--limit", "4", "-p", "no:cacheprovider")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(ROOT / "examples/method", tmp_path_factory.mktemp("project"), dirs_exist_ok=True))


@pytest.fixture(scope="module")
def shown(site: Path, project: Path) -> str:
    result = run_python(project, "use", "my-plan", path=(site,))
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def measured(site: Path, project: Path, output: str, *arguments: str) -> dict[str, Record]:
    result = run_python(project, "quantsuite", "run", *arguments, *QUIET, "--output", output, path=(site,))
    assert result.returncode == 0, result.stdout + result.stderr
    return {record.subject.scheme: record for record in read_run(project / output).records}


def test_the_ends_of_the_model_have_eight_bits_and_all_between_four(shown: str) -> None:
    layers = dict(line.split() for line in shown.splitlines() if line.startswith("model."))
    last = max(int(path.split(".")[2]) for path in layers)
    assert {path.split(".")[2] for path, scheme in layers.items() if scheme == "int8-row"} == {"0", str(last)}
    assert {path.split(".")[2] for path, scheme in layers.items() if scheme == "int4-g64"} == {
        str(number) for number in range(1, last)
    }


def test_a_scheme_that_names_it_and_its_saved_plan_give_the_same_record(site: Path, project: Path, shown: str) -> None:
    plan = Plan.load(project / "my-plan")
    records = measured(site, project, "named.jsonl", "--method", "./mine.py", "--scheme", "int4-g64,int4-g64@mine")
    named, plain = records["int4-g64@mine"], records["int4-g64"]
    assert (named.subject.plan, plain.subject.plan) == (plan.sha256, "")
    assert plain.weight_bytes < named.weight_bytes and plain.value != named.value
    saved = measured(site, project, "saved.jsonl", "--plan", "./my-plan")
    assert saved.keys() == {"bf16", "int4-g64@mine"}
    found = saved["int4-g64@mine"]
    assert (found.subject, found.value, found.items) == (named.subject, named.value, named.items)
