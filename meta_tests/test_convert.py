"""Run files of version 1 become files of this one, and nothing of them is lost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from meta_tests import factories
from meta_tests.command import quantsuite
from quantsuite.convert import convert
from quantsuite.lines import decode_line
from quantsuite.reading import read_run
from quantsuite.records import ErrorPoint, PropertyResult, Record, RecordError, Result, Run
from quantsuite.runfile import write_run

VERSION_1 = Path(__file__).parent / "data" / "version1.json"
OLD = json.loads(VERSION_1.read_text())
MOVED = {"metric": {"unit", "better"}, "subject": {"scheme", "engine"}}
"""Of each part of a record in version 1, what another field says now."""


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Run:
    path = tmp_path_factory.mktemp("converted") / "new.jsonl"
    assert convert([VERSION_1], path) == sum(len(OLD[name]) for name in ("records", "properties", "errors"))
    return read_run(path)


def holds(found: Any, given: Any) -> bool:
    """Whether every field that was given has its value still; one that was empty may have gone."""
    if isinstance(given, dict):
        return all(value is None or holds(found.get(name), value) for name, value in given.items())
    return found == given and type(found) is type(given)


@pytest.mark.parametrize("index", range(len(OLD["records"])))
def test_every_field_of_a_record_is_what_it_was(index: int, converted: Run) -> None:
    old, new = OLD["records"][index], msgspec.to_builtins(converted.records[index])
    for part, names in MOVED.items():
        old[part] = {name: value for name, value in old[part].items() if name not in names}
    old["task"] = old.pop("metric")
    old["details"] = old["details"] or None
    assert holds(new, old)


@pytest.mark.parametrize(("name", "kind"), [("properties", PropertyResult), ("errors", ErrorPoint)])
def test_checked_properties_and_errors_are_what_they_were(name: str, kind: type[Result], converted: Run) -> None:
    tag = {"type": kind.__struct_config__.tag}
    assert getattr(converted, name) == [msgspec.convert(old | tag, kind) for old in OLD[name]]


def test_each_record_names_its_scheme_its_metric_and_whether_the_head_was_quantized(converted: Run) -> None:
    def facts(record: Record) -> tuple[object, ...]:
        return record.subject.label, record.task.metric, record.subject.engine, record.subject.head

    assert [facts(record) for record in converted.records] == [
        ("bf16", "document perplexity", "transformers", False),
        ("int8-row-simulated", "word perplexity", "transformers", False),
        ("fp8-g128-real", "perplexity", "transformers", False),
        ("int8-row-real", "accuracy", "transformers", False),
        ("int8-row-real", "accuracy", "transformers", False),
        ("int8-row-real", "divergence", "transformers", False),
        ("fp8-row-real", "accuracy", "transformers", False),
        ("int8-tensor-real", "accuracy", "transformers", True),
    ]


def test_what_version_1_says_of_schemes_is_what_their_names_say(converted: Run) -> None:
    for old, new in zip(json.loads(VERSION_1.read_text())["records"], converted.records, strict=True):
        label, subject = old["subject"]["scheme"], new.subject
        assert label == {
            "name": subject.scheme,
            "format": subject.format,
            "granularity": subject.granularity,
            "alias": subject.alias,
        }


def test_several_runs_of_any_version_become_one(tmp_path: Path) -> None:
    write_run(tmp_path / "second.jsonl", [factories.record(factories.DIRECT, items=factories.choices(20, 0.5))])
    result = quantsuite("convert", str(VERSION_1), str(tmp_path / "second.jsonl"), str(tmp_path / "new.jsonl"))
    assert result.status == 0 and result.shown == f"{tmp_path / 'new.jsonl'}: 12 records\n"
    assert len(read_run(tmp_path / "new.jsonl").results) == 12


def test_of_several_records_of_a_cell_all_are_kept_and_the_last_counts(tmp_path: Path) -> None:
    records = [factories.record(factories.DIRECT, items=factories.choices(size, 0.5)) for size in (20, 4)]
    for number, record in enumerate(records):
        write_run(tmp_path / f"{number}.jsonl", [record])
    assert convert([tmp_path / "0.jsonl", tmp_path / "1.jsonl"], tmp_path / "new.jsonl") == 1
    _, *lines = (tmp_path / "new.jsonl").read_bytes().splitlines()
    assert [decode_line(line) for line in lines] == records
    assert read_run(tmp_path / "new.jsonl").records == records[1:]


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "new.jsonl").write_text("mine")
    result = quantsuite("convert", str(VERSION_1), str(tmp_path / "new.jsonl"))
    assert result.status == 2 and f"{tmp_path / 'new.jsonl'} exists; name a new file" in result.shown
    assert (tmp_path / "new.jsonl").read_text() == "mine"


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (('"value":0.7', '"value":0.75'), "int8-row-real: value is 0.75, its items give 0.7 as accuracy"),
        (('"unit":"accuracy"', '"unit":"songs"'), "unknown metric 'songs'"),
        (('"name":"int8-row"', '"name":"int9-row"'), "int9"),
        (('"subject"', '"object"'), "missing required field `subject`"),
        (('"schema_version":1', '"schema_version":0'), "there is no schema version 0"),
        (('"schema_version":1', '"schema_version":99'), "upgrade quantsuite"),
        (('"records":[{', '"records":[{"x":3},{'), "missing required field `metric`"),
        (('"schema_version":1', '"schema_version":1,"records":3,"x":{'), "is not a run file"),
    ],
)
def test_what_cannot_be_converted_is_named(edit: tuple[str, str], message: str, tmp_path: Path) -> None:
    old, text = tmp_path / "old.json", VERSION_1.read_text()
    assert edit[0] in text
    old.write_text(text.replace(*edit, 1))
    with pytest.raises(RecordError) as caught:
        convert([old], tmp_path / "new.jsonl")
    assert str(old) in str(caught.value) and message in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "new.jsonl").exists()
