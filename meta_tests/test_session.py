"""Cells of one session: what was scored for one serves another that asks the same."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from quantsuite.cells import Cell
from quantsuite.evaluate import multiple_choice
from quantsuite.scheme import REFERENCE, Scheme, Variant
from quantsuite.session import Session
from quantsuite.tasks import Sources, Task, load_task

BF16, INT8 = Variant(REFERENCE, None), Variant(Scheme.parse("int8-row"), "simulated")
ROWS = [
    {"country": "Norrland", "capitals": ["Vik", "Sund"]},
    {"country": "Estrell", "capitals": ["Mor", "Pell"]},
]
TASK = """
name = "capitals"
version = 1
metric = "accuracy"

[dataset]
kind = "files"
name = "capitals"
rows = "rows.jsonl"
columns = { country = "text", capitals = "texts" }

[recipe]
kind = "choices"
prompt = "The capital of {{ country }} is"
choices = "capitals"
answer = "0"
"""
CHANGES = {"accuracy": "", "normalized": 'metric = "normalized accuracy"', "asked": 'recipe.prompt = "{{ country }}:"'}


@pytest.fixture
def tasks(tmp_path: Path) -> dict[str, Task]:
    """One task, the same with another metric, and the same with another prompt."""
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (tmp_path / "base.toml").write_text(TASK)
    for name, change in CHANGES.items():
        (tmp_path / f"{name}.toml").write_text(f'extends = "base.toml"\nname = "{name}"\n{change}\n')
    return {name: load_task(tmp_path / f"{name}.toml") for name in CHANGES}


@pytest.fixture
def session() -> Iterator[Session]:
    made = Session("tiny", device="cpu", sources=Sources())
    yield made
    made.close()


@pytest.fixture
def scored(monkeypatch: pytest.MonkeyPatch) -> list[Sequence[Any]]:
    """The questions of each time that questions are scored."""
    found: list[Sequence[Any]] = []
    score = multiple_choice.score

    def counted(engine: Any, tokenizer: Any, questions: Sequence[Any], **options: Any) -> list[list[float]]:
        found.append(questions)
        return score(engine, tokenizer, questions, **options)

    monkeypatch.setattr(multiple_choice, "score", counted)
    return found


def test_tasks_that_differ_in_the_metric_alone_are_scored_once(
    session: Session, tasks: dict[str, Task], scored: list[Sequence[Any]]
) -> None:
    cells = [Cell(task=tasks[name], variant=BF16) for name in ("accuracy", "normalized")]
    first, second = (session.measure(cell, "test") for cell in cells)
    assert len(scored) == 1
    assert (second.items, second.seconds, second.dataset) == (first.items, first.seconds, first.dataset)
    fresh = Session("tiny", device="cpu", sources=Sources())
    alone = fresh.measure(cells[1], "test")
    fresh.close()
    assert (second.value, second.details, second.items) == (alone.value, alone.details, alone.items)


@pytest.mark.parametrize(("name", "variant"), [("asked", BF16), ("accuracy", INT8)], ids=["prompt", "scheme"])
def test_another_prompt_or_scheme_is_scored_anew(
    session: Session, tasks: dict[str, Task], scored: list[Sequence[Any]], name: str, variant: Variant
) -> None:
    first = session.measure(Cell(task=tasks["accuracy"], variant=BF16), "test")
    second = session.measure(Cell(task=tasks[name], variant=variant), "test")
    assert len(scored) == 2 and first.items != second.items
