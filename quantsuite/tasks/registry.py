"""Tasks by name: those that are shipped, and files of one's own."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

from quantsuite.tasks.files import SHIPPED, TaskError, load_task
from quantsuite.tasks.task import Task
from quantsuite.tiny import EMBEDDED

_FIRST = ("world", "world-mmlu", "wikitext2", "mmlu")
"""Families that are listed before the others."""


def _place(path: Path) -> tuple[int, str]:
    family = path.parent.name
    return (_FIRST.index(family) if family in _FIRST else len(_FIRST), str(path))


@cache
def shipped_tasks() -> Mapping[str, Task]:
    """All that are shipped, by name."""
    found = (load_task(path) for path in sorted(SHIPPED.glob("*/*.toml"), key=_place))
    return {task.name: task for task in found}


def _named(name: str) -> list[Task]:
    if name.endswith(".toml"):
        return [load_task(Path(name).expanduser())]
    shipped = shipped_tasks()
    return [task for task in shipped.values() if name in (task.name, task.name.split("/")[0])]


def select_tasks(names: Iterable[str]) -> list[Task]:
    """Tasks by name, by the part before the slash (``mmlu`` is ``mmlu/direct`` and ``mmlu/generate``), or by file.

    Raises:
        TaskError: if a file is no task, or two files have tasks of one name.
        ValueError: if a name is none of these.
    """
    chosen: dict[str, Task] = {}
    for name in names:
        matching = _named(name)
        if not matching:
            families = {task.split("/")[0]: None for task in shipped_tasks()}
            close = difflib.get_close_matches(name, [*shipped_tasks(), *families], n=1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            raise ValueError(
                f"unknown task {name!r}; {hint}known: {', '.join(shipped_tasks())}; one of your own is ./file.toml"
            )
        for task in matching:
            if chosen.get(task.name, task) != task or shipped_tasks().get(task.name, task) != task:
                raise TaskError(f"{name}: the name {task.name!r} is that of another task; give this one its own")
            chosen[task.name] = task
    return list(chosen.values())


def default_tasks(model: str, context: int | None) -> list[Task]:
    """The embedded model's own texts and questions, or WikiText-2 and MMLU for any other model.

    Of WikiText-2's recipes the first of those of 2,048 tokens, 512 tokens, and any number that the context holds.
    """
    if model in EMBEDDED:
        return select_tasks(["world/document", "world-mmlu"])
    recipes = (shipped_tasks()[f"wikitext2/{name}"] for name in ("window2048", "chunk512", "document"))
    text = next(task for task in recipes if context is None or task.context <= context)
    return [text, *select_tasks(["mmlu"])]
