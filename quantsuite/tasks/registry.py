"""Tasks by name: those that are shipped, and files of one's own."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

import msgspec

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


def _unknown(name: str) -> str:
    """What there is instead of a task: those of its family, or families."""
    tasks = list(shipped_tasks())
    families = list(dict.fromkeys(task.split("/")[0] for task in tasks))
    own = [task for task in tasks if task.split("/")[0] == name.split("/")[0]]
    close = difflib.get_close_matches(name, [*tasks, *families], n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"unknown task {name!r}; {hint}known: {', '.join(own or families)}; one of your own is ./file.toml"


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
            raise ValueError(_unknown(name))
        for task in matching:
            others = (chosen.get(task.name, task), shipped_tasks().get(task.name, task))
            if any(msgspec.structs.replace(other, sha256=task.sha256) != task for other in others):
                raise TaskError(f"{name}: the name {task.name!r} is that of another task; give this one its own")
            chosen[task.name] = shipped_tasks().get(task.name, task)
    return list(chosen.values())


def default_tasks(model: str, context: int | None) -> list[Task]:
    """Layers in place, then text, drift and questions: the embedded model's own, or WikiText-2 and MMLU for any other.

    Of WikiText-2's recipes the first of those of 2,048 tokens, 512 tokens, and any number that the context holds.
    """
    if model in EMBEDDED:
        return select_tasks(["layers", "world/document", "world/drift", "world/execution-drift", "world-mmlu"])
    recipes = (shipped_tasks()[f"wikitext2/{name}"] for name in ("window2048", "chunk512", "document"))
    text = next(task for task in recipes if context is None or task.context <= context)
    drift = [] if context is not None and shipped_tasks()["wikitext2/drift"].context > context else ["wikitext2/drift"]
    return [*select_tasks(["layers"]), text, *select_tasks([*drift, "mmlu"])]
