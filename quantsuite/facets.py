"""Facets: what a record is told apart from others by, each as a word."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from quantsuite import granularity as granularities
from quantsuite.records import Record
from quantsuite.scheme import EXECUTIONS, Scheme

FIELDS = (
    *("task", "source", "recipe", "metric"),
    *("scheme", "format", "granularity", "rest", "plan", "head"),
    *("execution", "kernel", "engine", "device", "dtype"),
)
"""A task's name, its part before and after the slash, its metric; the scheme, the format and granularity of its weight,
what else it says, the plan, whether the head is quantized; and what ran it."""

PARTS = {"task": ("source", "recipe"), "scheme": ("format", "granularity", "rest")}
"""Fields that are made of others."""

CHOSEN = ("plan", "kernel")
"""Fields that are empty unless a user chose."""

KEY = ("task", "scheme", "plan", "head", "execution", "kernel", "engine", "device", "dtype")
"""Fields that together tell any two records of a model apart."""


def parse_fields(text: str, known: Sequence[str] = FIELDS) -> dict[str, str]:
    """Fields and values of words such as ``format=int8 granularity=row``; a value with blanks stands in quotes.

    Raises:
        ValueError: if a word is no field and value, or a field is named twice.
    """
    found: dict[str, str] = {}
    for word in shlex.split(text):
        name, sign, value = word.partition("=")
        if not sign:
            raise ValueError(f"{word!r} is not FIELD=VALUE; fields are {', '.join(known)}")
        if name in found:
            raise ValueError(f"{name!r} is named twice; give one value")
        found[name] = value
    return found


def scheme_facets(scheme: Scheme) -> dict[str, str]:
    """The value of each field of a scheme, empty where it has none."""
    weight, name = scheme.weight, str(scheme)
    form, granularity = ("", "") if weight is None else (weight.format.name, str(weight.granularity))
    plain = scheme.is_reference or scheme.is_weight_only
    rest = "" if plain else name.removeprefix(f"{form}-{granularity}").removeprefix("-")
    return {"scheme": name, "format": form, "granularity": granularity, "rest": rest}


def facets_of(record: Record) -> dict[str, str]:
    """The value of each field of a record, empty where it has none."""
    subject = record.subject
    source, _, recipe = record.task.name.partition("/")
    return {
        "task": record.task.name,
        "source": source,
        "recipe": recipe,
        "metric": record.task.metric,
        **scheme_facets(subject.variant.scheme),
        "plan": subject.plan,
        "head": "quantized" if subject.head else "",
        "execution": subject.execution or "",
        "kernel": subject.kernel,
        "engine": subject.engine,
        "device": record.environment.device,
        "dtype": record.environment.dtype,
    }


def coarseness(granularity: str) -> tuple[int, int]:
    """Sorts names of granularities from coarse to fine; an empty one comes last."""
    return granularities.coarseness(granularities.parse_granularity(granularity) if granularity else None)


def place(field: str, value: str) -> tuple[int, int]:
    """Sorts values of granularity and execution; those of other fields are all equal."""
    if field == "granularity":
        return coarseness(value)
    return (EXECUTIONS.index(value) if field == "execution" and value else -1), 0
