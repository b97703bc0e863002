"""Shipped recipes on a dataset at a place."""

from __future__ import annotations

from transformers import AutoTokenizer

from quantsuite.evaluate.questions import Question
from quantsuite.tasks import Prepared, Sources, shipped_tasks
from quantsuite.tasks.rows import measured_rows
from quantsuite.tiny import embedded_folder


def prepare(name: str, place: str | None = None, *, limit: int = 0, max_length: int = 512) -> Prepared:
    """A shipped task with its data, tokenized as for the embedded model."""
    task = shipped_tasks()[name]
    places = {} if place is None else {task.dataset.name: place}
    tokenizer = AutoTokenizer.from_pretrained(embedded_folder())
    return task.prepare(tokenizer, Sources(places=places, limit=limit), max_length)


def wikitext_rows(place: str) -> tuple[str, ...]:
    """The texts of a copy of WikiText-2."""
    source = shipped_tasks()["wikitext2/head100"].dataset
    return tuple(row.values["text"] for row in measured_rows(source, Sources(places={source.name: place})))


def mmlu(place: str) -> list[Question]:
    """The questions of a copy of MMLU."""
    return prepare("mmlu/direct", place).questions
