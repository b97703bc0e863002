"""What a run measures: tasks under schemes in executions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from quantsuite.asked import Asked
from quantsuite.scheme import Variant
from quantsuite.tasks import Task


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A task under a scheme in an execution."""

    task: Task
    variant: Variant

    @property
    def label(self) -> str:
        return self.variant.label

    def asked(self, model: str) -> Asked:
        """The cell as records of a model name it."""
        return model, self.task.label.name, str(self.variant.scheme), self.variant.execution or ""

    def __str__(self) -> str:
        return f"{self.task.name}-{self.label}"


def make_cells(tasks: Sequence[Task], variants: Iterable[Variant]) -> list[Cell]:
    """Every task under every variant, variant by variant; what is compared with simulated execution of real ones."""
    cells = [Cell(task=task, variant=variant) for variant in variants for task in tasks]
    return [cell for cell in cells if cell.task.against == "reference" or cell.variant.execution == "real"]
