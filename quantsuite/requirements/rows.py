"""Rows of requirements, and the TOML files that hold them."""

from __future__ import annotations

import re
import tomllib
from functools import cached_property
from pathlib import Path
from typing import Literal, get_args

import msgspec

from quantsuite.metrics import Metric
from quantsuite.requirements.bounds import Bound, Quantity, parse_bounds
from quantsuite.requirements.patterns import SchemePattern, matches_model, unknown
from quantsuite.scheme import REFERENCE_NAME, Execution

SHIPPED = Path(__file__).parent / "shipped.toml"
Undecided = Literal["fail", "pass", "estimate"]
OF_ANY_MODEL = Path(__file__).parent / "any_model.toml"
"""What a model is held to that has no rows."""
_NAME = re.compile(r"[A-Za-z0-9_.-]+")


class RequirementError(ValueError):
    """A file of requirements that cannot be used; the message names the file, the row, the key and what there is."""


class Row(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, dict=True):
    """What is required of a model's records.

    Args:
        model: names or globs; the last part of a hub id or of a path is enough.
        scheme: names, globs, words such as ``w8``, or fields such as ``granularity=g64``.
        execution: of these schemes; either unless given.
        task: names, families, globs, or files of tasks of one's own.
        metric: of the tasks, by its name.
        loss: bounds of the loss against ``against``; positive is worse.
        difference: bound of its size, either way.
        value: bounds of the record's own value.
        against: a pattern of schemes of the same run, equal in all that neither side names.
        reason: why it is required.
        undecided: what becomes of the test where an interval does not decide; ``estimate`` passes unless the estimate
            lies beyond a bound.

    Raises:
        ValueError: beginning with a key, if a value is none.
    """

    model: str | list[str]
    scheme: str | list[str]
    reason: str
    execution: Execution | None = None
    task: str | list[str] = "*"
    metric: str = ""
    loss: str = ""
    difference: str = ""
    value: str = ""
    against: str = ""
    undecided: Undecided = "pass"

    def __post_init__(self) -> None:
        given = [name for name in ("loss", "difference", "value") if getattr(self, name)]
        if len(given) != 1:
            raise ValueError(f"{' and '.join(given) or 'loss'}: give one of loss, difference and value")
        if not self.reason.strip():
            raise ValueError("reason: it is empty; say why this is required")
        for key in ("model", "scheme", "task"):
            if not _listed(getattr(self, key)) or not all(_listed(getattr(self, key))):
                raise ValueError(f"{key}: it names nothing; give a name, or '*' for all")
        for key, read in ((self.quantity, lambda: self.bounds), ("scheme", lambda: self.schemes),
                          ("against", lambda: self.references)):  # fmt: skip
            try:
                read()
            except ValueError as error:
                raise ValueError(f"{key}: {error}") from error
        if self.quantity == "value" and self.against:
            raise ValueError("against: a value is compared with nothing; leave it away, or give loss")
        if self.quantity == "value" and any(bound.size is None for bound in self.bounds):
            raise ValueError("value: the margin is one of losses; write a number with its unit")
        if self.quantity == "difference" and [bound.side for bound in self.bounds] != ["at most"]:
            raise ValueError("difference: it is a size, of which only 'at most' can be required")
        if self.quantity == "difference" and (size := self.bounds[0].size) is not None and size < 0:
            raise ValueError(f"difference: it is a size, which is never at most {size:g}; write a number from 0")
        if self.quantity != "value" and _listed(self.scheme) == [REFERENCE_NAME] and not self.against:
            raise ValueError(f"scheme: {REFERENCE_NAME} is what a loss is against; require a value of it")

    @property
    def quantity(self) -> Quantity:
        return "value" if self.value else "difference" if self.difference else "loss"

    @cached_property
    def bounds(self) -> tuple[Bound, ...]:
        return parse_bounds(self.value or self.difference or self.loss)

    @cached_property
    def schemes(self) -> tuple[SchemePattern, ...]:
        return tuple(map(SchemePattern, _listed(self.scheme)))

    @cached_property
    def references(self) -> SchemePattern:
        return SchemePattern(self.against or REFERENCE_NAME)

    @property
    def models(self) -> list[str]:
        return _listed(self.model)

    @property
    def tasks(self) -> list[str]:
        return _listed(self.task)

    def is_of_model(self, model: str) -> bool:
        return any(matches_model(pattern, model) for pattern in self.models)

    def is_of_metric(self, metric: Metric) -> bool:
        """Whether a metric has the unit of what is required, and the name that is given."""
        return self.metric in ("", metric.name) and all(bound.is_of(metric, self.quantity) for bound in self.bounds)


def _listed(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def load_rows(path: Path) -> dict[str, Row]:
    """The rows of a TOML file, a table each, by name.

    Raises:
        RequirementError: if it is not there, is no TOML, or a row is none.
    """
    data = _read(path)
    rows = {}
    for name, table in data.items():
        if not _NAME.fullmatch(name):
            raise RequirementError(f"{path}: row {name!r} has a name of other letters; use a-z, 0-9, - _ and .")
        if not isinstance(table, dict):
            raise RequirementError(f"{path}: {name} = {table!r} stands outside a row; a row begins with [NAME]")
        try:
            rows[name] = msgspec.convert(table, Row)
        except msgspec.ValidationError as error:
            raise RequirementError(f"{path}: row {name}: {_explain(str(error))}") from error
    if not rows:
        raise RequirementError(f"{path} has no rows; a row begins with [NAME]")
    return rows


def _read(path: Path) -> dict[str, object]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RequirementError(f"{path}: {error.strerror}; name a TOML file, such as a copy of {SHIPPED}") from error
    except ValueError as error:
        raise RequirementError(f"{path} is no TOML: {' '.join(str(error).split())}") from error


def _explain(message: str) -> str:
    """A message of msgspec with the key, and what there is."""
    what, _, place = message.partition(" - at `$")
    key = re.sub(r"\[.*?\]", "", place.rstrip("`").removeprefix("."))
    if match := re.fullmatch(r"Object contains unknown field `(.*)`", what):
        return unknown("key", match[1], Row.__struct_fields__)
    if match := re.fullmatch(r"Object missing required field `(.*)`", what):
        return f"the key {match[1]} is missing"
    if match := re.fullmatch(r"Invalid enum value '(.*)'", what):
        return f"{key}: " + unknown(
            "value", match[1], {"execution": ("simulated", "real")}.get(key, get_args(Undecided))
        )
    return f"{key}: {what}" if key else what
