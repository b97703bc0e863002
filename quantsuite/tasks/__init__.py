"""Tasks: a recipe on a dataset with a metric, as data; what ``--task`` chooses from."""

from quantsuite.tasks.files import TaskError, load_task
from quantsuite.tasks.measuring import Measurement, Opened, Prepared
from quantsuite.tasks.registry import default_tasks, select_tasks, shipped_tasks
from quantsuite.tasks.rows import Sources
from quantsuite.tasks.task import Task

__all__ = [
    "Measurement",
    "Opened",
    "Prepared",
    "Sources",
    "Task",
    "TaskError",
    "default_tasks",
    "load_task",
    "select_tasks",
    "shipped_tasks",
]
