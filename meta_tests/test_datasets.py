"""Datasets that a recipe cannot use are refused in one line that names the place, the row or the subject."""

import json
import logging
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import datasets
import pytest

from meta_tests.recipes import mmlu, prepare, wikitext_rows
from quantsuite.evaluate.reading import DataError, MissingDataError

WIKITEXT = "wikitext-2-raw-v1"
QUESTION = {"question": "q", "subject": "s", "choices": ["a", "b", "c", "d"], "answer": 2}


@pytest.fixture(autouse=True)
def own_dataset_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    yield


def save_rows(folder: Path, config: str, **splits: list[dict[str, Any]]) -> str:
    """A dataset of JSON lines, which hold anything, with the hub's README that names the files."""
    folder.mkdir()
    files = "".join(f"  - split: {split}\n    path: {split}.jsonl\n" for split in splits)
    (folder / "README.md").write_text(f"---\nconfigs:\n- config_name: {config}\n  data_files:\n{files}---\n")
    for split, rows in splits.items():
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(folder)


def message(caught: pytest.ExceptionInfo[DataError]) -> str:
    assert "\n" not in str(caught.value)
    return str(caught.value)


def refused_text(folder: Path, rows: list[Any]) -> str:
    location = save_rows(folder, WIKITEXT, test=[{"text": row} for row in rows])
    with pytest.raises(DataError) as caught:
        prepare("wikitext2/head100", location)
    return message(caught)


def refused_questions(folder: Path, dev: list[dict[str, Any]], test: list[dict[str, Any]]) -> str:
    with pytest.raises(DataError) as caught:
        mmlu(save_rows(folder, "all", dev=dev, test=test))
    return message(caught)


@pytest.mark.parametrize(
    ("rows", "shown"), [(["a", None], "row 1: text None"), ([3, 4], "row 0: text 3"), ([["a"]], "row 0: text")]
)
def test_a_row_that_is_no_text_is_named(tmp_path: Path, rows: list[Any], shown: str) -> None:
    assert f"split 'test', {shown}" in refused_text(tmp_path / "d", rows)


def test_text_without_a_letter_is_refused(tmp_path: Path) -> None:
    assert "all 3 rows are empty" in refused_text(tmp_path / "d", ["", " ", "\n"])


BAD = [
    {"question": ""},
    {"question": None},
    {"question": 3},
    {"subject": None},
    {"subject": " "},
    {"choices": None},
    {"choices": "abcd"},
    {"choices": []},
    {"choices": ["a", "b", "c"]},
    {"choices": ["a", "b", "c", "d", "e"]},
    {"choices": ["a", "b", "c", None]},
    {"choices": ["a", "b", "c", ""]},
    {"choices": [1, 2, 3, 4]},
    {"answer": "2"},
    {"answer": "C"},
    {"answer": None},
    {"answer": 2.5},
    {"answer": float("nan")},
    {"answer": True},
    {"answer": 4},
    {"answer": -1},
]


@pytest.mark.parametrize("change", BAD, ids=str)
def test_a_row_that_is_no_question_is_named(tmp_path: Path, change: dict[str, Any]) -> None:
    rows = [QUESTION | change] * 5  # In both splits, as a column has one type.
    shown = refused_questions(tmp_path / "d", rows, rows)
    assert "split 'dev', row 0" in shown and "the recipe needs" in shown


def test_a_row_that_is_no_example_is_named(tmp_path: Path) -> None:
    rows = [QUESTION] * 4 + [QUESTION | {"choices": ["a"]}]
    assert "split 'dev', row 4: 1 choices" in refused_questions(tmp_path / "d", rows, [QUESTION])


@pytest.mark.parametrize("count", [1, 4])
def test_a_subject_of_fewer_than_five_examples_is_named(tmp_path: Path, count: int) -> None:
    dev = [QUESTION] * 5 + [QUESTION | {"subject": "law"}] * count
    shown = refused_questions(tmp_path / "d", dev, [QUESTION, QUESTION | {"subject": "law"}])
    assert f"only {count} examples in dev for law; the recipe needs 5" in shown


def test_five_examples_are_taken_where_there_are_more(tmp_path: Path) -> None:
    dev = [QUESTION | {"question": str(number)} for number in range(7)]
    (question,) = mmlu(save_rows(tmp_path / "d", "all", dev=dev, test=[QUESTION]))
    shown = re.findall(r"^(.)\nA\. a\nB\. b\nC\. c\nD\. d\nAnswer:(.*)$", question.prompt, re.MULTILINE)
    assert shown == [(str(number), " C") for number in range(5)] + [("q", "")]


@pytest.mark.parametrize("name", ["data[1]", "my data", "a*b", "what?", "[a]/b c[0-9]"])
def test_a_folder_whose_name_could_be_a_pattern_is_read(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    assert wikitext_rows(save_rows(tmp_path / name, WIKITEXT, test=[{"text": "a"}])) == ("a",)


@pytest.mark.parametrize("location", ["/absent/data", "./absent", "../absent/data", "~/absent", "a/b/absent"])
def test_a_path_that_is_not_there_is_told_from_a_hub_id(location: str) -> None:
    with pytest.raises(MissingDataError, match=r"absent.* is not a folder, and no hub id has this form"):
        wikitext_rows(location)


def test_a_file_is_no_dataset_folder(tmp_path: Path) -> None:
    (tmp_path / "data.parquet").touch()
    with pytest.raises(MissingDataError, match=r"data\.parquet is not a folder"):
        wikitext_rows(str(tmp_path / "data.parquet"))


def test_reading_writes_nothing_and_leaves_bars_and_logs_as_they_were(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    location = save_rows(tmp_path / "d", WIKITEXT, test=[{"text": "a"}])
    before = datasets.utils.are_progress_bars_disabled(), logging.root.manager.disable
    wikitext_rows(location)
    assert capfd.readouterr() == ("", "")
    assert (datasets.utils.are_progress_bars_disabled(), logging.root.manager.disable) == before


def test_a_folder_that_changed_is_read_again(tmp_path: Path) -> None:
    location = save_rows(tmp_path / "data", WIKITEXT, test=[{"text": "a"}])
    assert wikitext_rows(location) == ("a",)
    (tmp_path / "data" / "test.jsonl").write_text('{"text": "b"}\n')
    assert wikitext_rows(location) == ("b",)


def test_folders_of_one_name_have_their_own_rows(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        location = save_rows(tmp_path / name / "data", WIKITEXT, test=[{"text": name}])
        assert wikitext_rows(location) == (name,)


def test_several_tasks_ask_the_hub_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str]] = []

    def read(location: str, config: str, split: str, columns: Sequence[str]) -> list[dict[str, Any]]:
        asked.append((location, split))
        return [{"text": "a"}]

    monkeypatch.setattr("quantsuite.tasks.rows.read_rows", read)
    assert wikitext_rows("org/asked-once") == wikitext_rows("org/asked-once") == ("a",)
    assert asked == [("org/asked-once", "test")]
