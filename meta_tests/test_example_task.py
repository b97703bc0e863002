"""The example of a task of one's own runs from a folder that knows nothing but what the wheel installs."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from meta_tests.wheels import ROOT, run_python
from quantsuite.metrics import Choices
from quantsuite.reading import read_run
from quantsuite.records import Record


@pytest.fixture(scope="module")
def record(site: Path, tmp_path_factory: pytest.TempPathFactory) -> Record:
    project = tmp_path_factory.mktemp("project")
    shutil.copytree(ROOT / "examples/task", project, dirs_exist_ok=True)
    arguments = ["--task", "./capitals.toml", "--scheme", "bf16", "--output", "run.jsonl", "-p", "no:cacheprovider"]
    result = run_python(project, "quantsuite", "run", *arguments, path=(site,))
    assert result.returncode == 0, result.stdout + result.stderr
    (record,) = read_run(project / "run.jsonl").records
    return record


def test_the_record_carries_the_files_name_version_and_metric(record: Record) -> None:
    assert (record.task.name, record.task.version, record.task.metric) == ("capitals", 1, "accuracy")


def test_every_question_is_answered_with_as_many_choices_as_it_has(record: Record) -> None:
    assert isinstance(record.items, Choices)
    assert [len(row) for row in record.items.log_likelihoods or ()] == [4, 3, 2, 4, 2, 3, 3, 3, 4, 3]
    assert record.items.answer == [1, 2, 0, 1, 0, 1, 1, 0, 2, 1]
