"""Whether what rows name is there: tasks, metrics, units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from quantsuite.metrics import Metric, named_metric
from quantsuite.requirements.bounds import spellings
from quantsuite.requirements.patterns import is_task, unknown
from quantsuite.requirements.rows import RequirementError, Row
from quantsuite.tasks import load_task


def with_own_tasks(path: Path, rows: Mapping[str, Row]) -> tuple[dict[str, Row], dict[str, str]]:
    """Rows with names in place of tasks' files, which are beside theirs, and these names with those of their metrics.

    Raises:
        RequirementError: if such a file is no task.
    """
    named, metrics = {}, {}
    for name, row in rows.items():
        tasks = []
        for pattern in row.tasks:
            if pattern.endswith(".toml"):
                try:
                    label = load_task(path.parent / Path(pattern).expanduser()).label
                except ValueError as error:
                    raise RequirementError(f"{path}: row {name}: task: {error}") from error
                pattern, metrics[label.name] = label.name, label.metric
            tasks.append(pattern)
        named[name] = msgspec.structs.replace(row, task=tasks)
    return named, metrics


def check_rows(path: Path, rows: Mapping[str, Row], tasks: Mapping[str, str]) -> None:
    """Refuse rows of tasks, metrics or units that there are not, whichever model they are of.

    Args:
        path: of the file.
        rows: by name.
        tasks: names of all that there are, with the names of their metrics.

    Raises:
        RequirementError: with what there is.
    """
    for name, row in rows.items():
        try:
            _check(row, tasks)
        except ValueError as error:
            raise RequirementError(f"{path}: row {name}: {error}") from error


def _check(row: Row, tasks: Mapping[str, str]) -> None:
    if row.metric:
        try:
            named_metric(row.metric)
        except ValueError as error:
            raise ValueError(f"metric: {error}") from error
    for pattern in row.tasks:
        found = [name for name in tasks if is_task(pattern, name)]
        if not found:
            families = dict.fromkeys(name.partition("/")[0] for name in tasks)
            known = [name for name in tasks if name.partition("/")[0] == pattern.partition("/")[0]] or families
            raise ValueError(f"task: {unknown('task', pattern, known)}; one of your own is ./file.toml")
        metrics = [named_metric(metric) for metric in dict.fromkeys(tasks[name] for name in found)]
        if not any(map(row.is_of_metric, metrics)):
            raise ValueError(_no_unit(row, pattern, metrics))


def _no_unit(row: Row, pattern: str, metrics: Sequence[Metric]) -> str:
    if row.metric and row.metric not in (names := [metric.name for metric in metrics]):
        return f"metric: {pattern} is measured by {', '.join(names)}, not by {row.metric}"
    found = [each for each in metrics if row.quantity == "value" or each.is_paired]
    if not found:
        return f"{row.quantity}: {metrics[0].name} of {pattern} has no paired comparison; require a value"
    units = dict.fromkeys(spellings(each, row.quantity)[0] for each in found)
    other = next(each for each in row.bounds if not any(each.is_of(metric, row.quantity) for metric in found))
    return f"{row.quantity}: {pattern} is in {', '.join(units)}, not in {other.unit}"
