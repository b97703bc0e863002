"""Which cells a run was asked for, and what of a baseline it was not."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from quantsuite.records import Record

Asked = tuple[str, str, str, str]
"""Model, task, scheme and execution of a cell, the last empty for the reference."""
SHOWN = 3
"""Names of what was not run that a line tells."""


def cell_of(record: Record) -> Asked:
    """The cell of a record, as it is asked for."""
    return record.cell[:4]


def asked_by(records: Iterable[Record]) -> set[Asked]:
    """What a run was asked for, as far as its records tell: of each model every task that one is of, under every
    scheme and execution that one is of."""
    tasks: dict[str, set[str]] = {}
    variants: dict[str, set[tuple[str, str]]] = {}
    for model, task, scheme, execution in map(cell_of, records):
        tasks.setdefault(model, set()).add(task)
        variants.setdefault(model, set()).add((scheme, execution))
    return {(model, task, *variant) for model in tasks for task in tasks[model] for variant in variants[model]}


def not_run(baselines: Sequence[Record], left: Collection[Record]) -> str:
    """One line on the baseline's records that a run was not asked for; empty if there are none."""
    if not left:
        return ""
    left_cells = {record.key for record in left}
    rest = [record for record in baselines if record.key not in left_cells]

    def missing(noun: str, names: Iterable[str], kept: Iterable[str]) -> list[str]:
        every, held = list(dict.fromkeys(names)), set(kept)
        lost = [name for name in every if name not in held]
        shown = ", ".join([*lost[:SHOWN], *(["..."] if len(lost) > SHOWN else [])])
        return [f"{len(lost)} of {len(every)} {noun} ({shown})"] if lost else []

    parts = missing("models", (r.subject.model for r in baselines), (r.subject.model for r in rest))
    parts += missing("schemes", (r.subject.title for r in baselines), (r.subject.title for r in rest))
    parts += missing("tasks", (r.task.name for r in baselines), (r.task.name for r in rest))
    what = "; ".join(parts) or "combinations of them"
    return f"not run: {what}: {len(left)} of {len(baselines)} cells; --gate-complete asks for all"
