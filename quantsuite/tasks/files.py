"""Tasks as TOML files: read, and what is wrong with one said in one line."""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import msgspec

from quantsuite.adapters.checkpoint import one_line
from quantsuite.tasks.task import Task

SHIPPED = Path(__file__).resolve().parent
_FILLED_IN = "sha256"
"""A field of a task that no file gives."""


class TaskError(ValueError):
    """A task's file that cannot be used; the message names the file, the key, and what there is."""


def load_task(path: Path) -> Task:
    """The task of a TOML file.

    A file that ``extends`` another, seen from itself or from the shipped tasks, has all of that one's keys but the
    name, unless it gives them anew.

    Raises:
        TaskError: if it is not there, is no TOML, or is no task.
    """
    data = _read(path)
    if _FILLED_IN in data:
        raise TaskError(f"{path}: unknown key {_FILLED_IN}; there are {', '.join(_keys([], data))}")
    try:
        task = msgspec.convert(data, Task)
    except msgspec.ValidationError as error:
        raise TaskError(f"{path}: {_explain(str(error), data)}") from error
    return task if path.resolve().is_relative_to(SHIPPED) else msgspec.structs.replace(task, sha256=task.digest)


def _read(path: Path, extending: tuple[Path, ...] = ()) -> dict[str, Any]:
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        found = ", ".join(sorted(other.name for other in path.parent.glob("*.toml"))) or "no .toml file"
        raise TaskError(f"there is no task {path}; {path.parent} has {found}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise TaskError(f"task {path} cannot be read: {one_line(error)}") from error
    except tomllib.TOMLDecodeError as error:
        raise TaskError(f"{path} is no TOML: {one_line(error)}") from error
    metric = data.get("metric")
    if isinstance(metric, str) and metric.partition(":")[0].endswith(".py"):
        data["metric"] = str(path.parent.resolve() / metric)
    if "extends" not in data:
        _place(data, {}, path.parent.resolve())
        return data
    base = _base(path, data.pop("extends"))
    if base in (chain := (*extending, path.resolve())):
        raise TaskError(f"{path}: extends leads back to {base}; let one file stand alone")
    below = {key: value for key, value in _read(base, chain).items() if key != "name"}
    _place(data, below, path.parent.resolve())
    return _merged(below, data)


def _place(data: dict[str, Any], base: dict[str, Any], parent: Path) -> None:
    """Set the folder that a dataset's files are seen from, so that each is beside the file that names it."""
    own, below = data.get("dataset"), base.get("dataset")
    if not isinstance(own, dict):
        return
    below = below if isinstance(below, dict) and own.get("kind", below.get("kind")) == below.get("kind") else {}
    places = [table[key] for table in (own, below) for key in ("folder", "rows", "examples") if key in table]
    if own.get("kind", below.get("kind")) != "files" or not all(isinstance(place, str) for place in places):
        return
    if "folder" in own or "folder" not in below:
        own["folder"] = str((parent / own.get("folder", "")).resolve())
    elif "rows" in own:
        own["folder"] = str(parent)
        if below.get("examples"):
            own.setdefault("examples", os.path.relpath(Path(below["folder"]) / below["examples"], parent))
    elif own.get("examples"):
        own["examples"] = os.path.relpath(parent / own["examples"], below["folder"])


def _base(path: Path, named: object) -> Path:
    if not isinstance(named, str):
        raise TaskError(f"{path}: extends {named!r} is no path; give that of a task's file")
    beside, shipped = path.parent / named, SHIPPED / named
    return (shipped if shipped.is_file() and not beside.is_file() else beside).resolve()


def _merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Tables key by key; of two kinds nothing is shared."""
    merged = dict(base)
    for key, value in over.items():
        below = base.get(key)
        tables = isinstance(value, dict) and isinstance(below, dict)
        same = tables and value.get("kind", below.get("kind")) == below.get("kind")
        merged[key] = _merged(below, value) if same else value
    return merged


def _hint(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"did you mean {close[0]!r}? " if close else ""


def _explain(message: str, data: dict[str, Any]) -> str:
    """A message of msgspec with the key in TOML's spelling, and what there is."""
    what, _, place = message.partition(" - at `$")
    keys = [key for key in re.sub(r"\[[^\]]*\]", "", place.rstrip("`")).split(".") if key]
    where = ".".join(keys)
    if match := re.fullmatch(r"Object contains unknown field `(.*)`", what):
        known = _keys(keys, data)
        key = match[1]
        return f"unknown key {_dotted(where, key)}; {_hint(key, known)}there are {', '.join(known)}"
    if match := re.fullmatch(r"Object missing required field `(.*)`", what):
        return f"the key {_dotted(where, match[1])} is missing{_choices(_field(keys, match[1], data))}"
    if match := re.fullmatch(r"Invalid (?:enum )?value '(.*)'", what):
        known = _literals(_field(keys[:-1], keys[-1], data))
        return f"{where} {match[1]!r} is unknown; {_hint(match[1], known)}there are {', '.join(known)}"
    return f"{where}: {what}" if where and what.startswith("Expected") else what


def _dotted(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key


def _choices(kind: object) -> str:
    known = _literals(kind)
    return f"; give one of {', '.join(known)}" if known else ""


def _union(key: str) -> dict[str, type]:
    """The kinds of a table by their names."""
    hint = get_type_hints(Task).get(key)
    return {str(each.__struct_config__.tag): each for each in get_args(hint) if hasattr(each, "__struct_config__")}


def _struct(keys: list[str], data: dict[str, Any]) -> type | None:
    """The type of the table at a path: the task, its dataset or its recipe."""
    if not keys:
        return Task
    table = data.get(keys[0])
    return _union(keys[0]).get(table.get("kind", "")) if isinstance(table, dict) and len(keys) == 1 else None


def _keys(keys: list[str], data: dict[str, Any]) -> list[str]:
    found = _struct(keys, data)
    own = [name for name in found.__struct_fields__ if name != _FILLED_IN] if found else []
    return ["kind", *own] if keys else [*own, "extends"]


def _field(keys: list[str], name: str, data: dict[str, Any]) -> object:
    if name == "kind" and len(keys) == 1:
        return Literal[tuple(_union(keys[0]))]
    found = _struct(keys, data)
    return get_type_hints(found).get(name) if found else None


def _literals(kind: object) -> list[str]:
    """The values that a type names, within tables too."""
    if get_origin(kind) is Literal:
        return [str(each) for each in get_args(kind)]
    return [value for each in get_args(kind) for value in _literals(each)]
