"""Cells for tests of the gate: records with fields changed, and what a gate says of them."""

from __future__ import annotations

import msgspec

from meta_tests import factories
from quantsuite.gate import GateResult
from quantsuite.metrics import Items
from quantsuite.records import Record, TaskLabel

CHOICES = factories.choices(1000, 0.7)
WORSE = factories.changed_choices(CHOICES, lost=80, gained=10)


def cell(items: Items | None, task: TaskLabel = factories.DIRECT, scheme: str = "int8-row", **fields: object) -> Record:
    execution = None if scheme == "bf16" else "simulated"
    return factories.record(task, scheme, execution, items=items, **fields)


def replaced(record: Record, **changes: object) -> Record:
    """The record with fields changed, those of its parts as ``part__field``."""
    for path, value in changes.items():
        part, _, name = path.rpartition("__")
        if part:
            value = msgspec.structs.replace(getattr(record, part), **{name: value})
        record = msgspec.structs.replace(record, **{part or name: value})
    return record


def failures(result: GateResult) -> list[tuple[str, str | None]]:
    assert not result.passed
    return [(check.status, check.reason) for check in result.failures]
