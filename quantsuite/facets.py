"""Facets: what a record is told apart from others by, each as a word."""

from __future__ import annotations

import re

from quantsuite.records import Record

FIELDS = (
    *("task", "source", "recipe", "metric"),
    *("scheme", "format", "granularity", "rest", "plan", "head"),
    *("execution", "kernel", "engine", "device", "dtype"),
)
"""A task's name, its part before and after the slash, its metric; the scheme, the format and granularity of its weight,
what else it says, the plan, whether the head is quantized; and what ran it."""

PARTS = {"task": ("source", "recipe"), "scheme": ("format", "granularity", "rest")}
"""Fields that are made of others."""

KEY = ("task", "scheme", "plan", "head", "execution", "engine", "device", "dtype")
"""Fields that together tell any two records of a model apart."""


def facets_of(record: Record) -> dict[str, str]:
    """The value of each field of a record, empty where it has none."""
    subject = record.subject
    form, granularity = subject.format or "", subject.granularity or ""
    source, _, recipe = record.task.name.partition("/")
    return {
        "task": record.task.name,
        "source": source,
        "recipe": recipe,
        "metric": record.task.metric,
        "scheme": subject.scheme,
        "format": form,
        "granularity": granularity,
        "rest": subject.scheme.removeprefix(f"{form}-{granularity}").removeprefix("-"),
        "plan": subject.plan,
        "head": "quantized" if subject.head else "",
        "execution": subject.execution or "",
        "kernel": subject.kernel,
        "engine": subject.engine,
        "device": record.environment.device,
        "dtype": record.environment.dtype,
    }


def coarseness(granularity: str | None) -> tuple[int, int]:
    """Sorts granularities from coarse to fine: tensor, row, then groups from large to small."""
    if group := re.fullmatch(r"g(\d+)", granularity or ""):
        return 2, -int(group[1])
    return {"tensor": 0, "row": 1}.get(granularity or "", 3), 0


def place(field: str, value: str) -> tuple[int, int]:
    """Sorts values of granularity and execution; those of other fields are all equal."""
    if field == "granularity":
        return coarseness(value)
    executions = ("simulated", "real")
    return (executions.index(value) if field == "execution" and value in executions else -1), 0
