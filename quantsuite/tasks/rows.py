"""The rows of a task's dataset, each of the types that the task says."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

from quantsuite.evaluate.data import world_documents, world_questions
from quantsuite.evaluate.reading import DataError, read_file, read_rows
from quantsuite.tasks.datasets import ColumnType, FilesDataset, HubDataset, Source
from quantsuite.tasks.templates import TemplateFault, evaluate, render


@dataclass(frozen=True, kw_only=True)
class Sources:
    """Where data comes from and how much of it is used.

    Args:
        places: of datasets by name, where it is not the task's own: a hub id, or the folder of a local copy.
        limit: questions drawn, or first windows or documents taken; 0 for all.
        seed: of the draw of questions.
    """

    places: Mapping[str, str] = field(default_factory=dict)
    limit: int = 0
    seed: int = 42


@dataclass(frozen=True, kw_only=True)
class Row:
    """Columns of a dataset, and where they stand in it."""

    place: str
    values: Mapping[str, Any]

    def render(self, key: str, template: str) -> str:
        """A template of a task, filled in.

        Raises:
            DataError: naming the row and the key, if the row lacks what it needs.
        """
        try:
            return render(template, self.values)
        except TemplateFault as error:
            self.refuse(f"{key} cannot be filled in: {error}")

    def evaluate(self, key: str, expression: str) -> Any:
        """The value of a task's expression.  Raises as :meth:`render`."""
        try:
            return evaluate(expression, self.values)
        except TemplateFault as error:
            self.refuse(f"{key} cannot be filled in: {error}")

    def refuse(self, why: str) -> NoReturn:
        raise DataError(f"{self.place}: {why}")


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


_TYPES: dict[ColumnType, tuple[Callable[[Any], bool], str, str]] = {
    "text": (_is_text, "no text", "a string that is not empty"),
    "string": (lambda value: isinstance(value, str), "no string", "a string"),
    "texts": (
        lambda value: isinstance(value, list) and all(map(_is_text, value)),
        "no list of texts",
        "a list of strings that are not empty",
    ),
    "integer": (lambda value: isinstance(value, int) and not isinstance(value, bool), "no integer", "an integer"),
    "any": (lambda value: value is not None, "nothing", "a value"),
}
"""Of each type what it takes, what else is called, and what is needed."""


def _checked(rows: list[dict[str, Any]], place: str, columns: Mapping[str, ColumnType]) -> list[Row]:
    checked = [Row(place=f"{place}row {number}", values=row) for number, row in enumerate(rows)]
    for row in checked:
        for name, kind in columns.items():
            takes, otherwise, needed = _TYPES[kind]
            if not takes(row.values[name]):
                row.refuse(f"{name} {row.values[name]!r} is {otherwise}; the recipe needs {needed}")
    return checked


def _split(location: str, config: str, split: str, columns: tuple[tuple[str, ColumnType], ...]) -> list[Row]:
    found = read_rows(location, config, split, [name for name, _ in columns])
    return _checked(found, f"{location!r}, split {split!r}, ", dict(columns))


_split_of_hub = cache(_split)
"""Rows that several tasks of a run read: the hub is asked once.  A folder is read again, as its files may change."""


def _read(source: Source, part: str, sources: Sources) -> list[Row]:
    place, columns = sources.places.get(source.name), source.columns
    if isinstance(source, HubDataset):
        location = place or source.place
        read = _split if Path(location).expanduser().is_dir() else _split_of_hub
        return read(location, source.config, part, tuple(columns.items()))
    if isinstance(source, FilesDataset):
        path = Path(place or source.place).expanduser() / part
        return _checked(read_file(path, list(columns)), f"{str(path)!r}, ", columns)
    if place is not None:
        raise DataError(f"the dataset {source.name} is generated; it cannot be read from {place!r}")
    return _checked(world_documents() if part == "documents" else world_questions()[part == "test"], "", source.columns)


def measured_rows(source: Source, sources: Sources) -> list[Row]:
    """The rows that a task measures, all of them.

    Raises:
        MissingDataError: if they are not to be had.
        DataError: if a column is missing or a value is of another type than the task says.
    """
    if isinstance(source, HubDataset):
        return _read(source, source.split, sources)
    if isinstance(source, FilesDataset):
        return _read(source, source.rows, sources)
    return _read(source, "test" if source.part == "questions" else "documents", sources)


def example_rows(source: Source, sources: Sources) -> list[Row]:
    """The rows of solved examples.  Raises as :func:`measured_rows`."""
    return _read(source, source.examples, sources)


def place_of(source: Source, sources: Sources) -> str:
    """Where a dataset is read from, for messages."""
    return sources.places.get(source.name, getattr(source, "place", source.name))
