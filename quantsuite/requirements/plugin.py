"""The pytest side: the parameter ``requirement``, and what the summary says of rows."""

from __future__ import annotations

import textwrap
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from quantsuite.options import RunOptions
from quantsuite.refusal import refused

if TYPE_CHECKING:
    from quantsuite.cells import Cell
    from quantsuite.requirements.rows import Row

UNDECIDED = "quantsuite_undecided"
"""Under what a test's report carries what an interval did not decide."""
OF_OTHERS = pytest.StashKey[str]()
"""Which models rows are of, where none is of the run's."""


def parametrize(metafunc: pytest.Metafunc, cells: Sequence[Cell] | ValueError) -> None:
    """One parameter for each requirement on each cell of the run; one that is skipped for a row that is on none.

    Args:
        metafunc: of a test of a ``requirement``.
        cells: of the run, or why there can be none.
    """
    if not isinstance(cells, ValueError):
        try:
            params = _params(metafunc.config, cells)
        except ValueError as error:
            cells = error
    metafunc.parametrize("requirement", [refused(cells)] if isinstance(cells, ValueError) else params)


def _params(config: pytest.Config, cells: Sequence[Cell]) -> list[Any]:
    from quantsuite.requirements.cases import requirements_of

    options = RunOptions.read(config.option)
    rows = rows_of(options, cells)
    if not rows:
        config.stash[OF_OTHERS] = ", ".join(_models(_all_rows(options, cells)))
    found, unmatched = requirements_of(rows or rows_of_any_model(cells), cells)
    skipped = [
        pytest.param(None, id=name, marks=pytest.mark.skip(reason=f"{name}: {reason}"))
        for name, reason in unmatched.items()
    ]
    return [pytest.param(each, id=str(each)) for each in found] + skipped


def _models(rows: Mapping[str, Row]) -> list[str]:
    return list(dict.fromkeys(model for row in rows.values() for model in row.models))


def rows_of(options: RunOptions, cells: Sequence[Cell]) -> dict[str, Row]:
    """The rows of a run's model: those of ``--requirements``, else those that are shipped and those of any model.

    Raises:
        RequirementError: if a row of the file, of whichever model, is none.
    """
    rows = _all_rows(options, cells)
    own = {name: row for name, row in rows.items() if row.is_of_model(options.model)}
    return own | rows_of_any_model(cells) if own and options.requirements is None else own


def _all_rows(options: RunOptions, cells: Sequence[Cell]) -> dict[str, Row]:
    from quantsuite.requirements.rows import SHIPPED

    return _load(options.requirements or SHIPPED, cells)


def rows_of_any_model(cells: Sequence[Cell]) -> dict[str, Row]:
    """What a model is held to that has no rows."""
    from quantsuite.requirements.rows import OF_ANY_MODEL

    return _load(OF_ANY_MODEL, cells)


def _load(path: Path, cells: Sequence[Cell]) -> dict[str, Row]:
    from quantsuite.requirements.names import check_rows, with_own_tasks
    from quantsuite.requirements.rows import load_rows
    from quantsuite.tasks import shipped_tasks

    tasks = [*shipped_tasks().values(), *(cell.task for cell in cells)]
    rows, own = with_own_tasks(path, load_rows(path))
    check_rows(path, rows, {task.name: task.label.metric for task in tasks} | own)
    return rows


class RequirementsSummary:
    """Says after a run which rows an interval did not decide, and of a model that it has none."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._undecided: dict[str, list[str]] = defaultdict(list)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" and report.passed:
            for key, value in report.user_properties:
                if key == UNDECIDED:
                    name, text = value
                    self._undecided[name].append(text)

    @pytest.hookimpl(trylast=True)
    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        for line in self._lines():
            terminalreporter.write_line(textwrap.fill(line, terminalreporter._tw.fullwidth, subsequent_indent="  "))

    def _lines(self) -> Iterator[str]:
        for name, texts in self._undecided.items():
            more = f" (and {len(texts) - 1} more of this row)" if len(texts) > 1 else ""
            yield f"undecided: {name}: {texts[0]}{more}"
        if others := self._config.stash.get(OF_OTHERS, ""):
            model = RunOptions.read(self._config.option).model
            yield (
                f"no requirements for {model}: rows are of {others}; held to what holds for any model as far as it was "
                "run (layers in place, real = simulated); --requirements FILE has rows of your own"
            )
