"""A heading of the report with what stands under it."""

from __future__ import annotations

from dataclasses import dataclass

from quantsuite.reporting.figures import Plot
from quantsuite.reporting.tables import Table


@dataclass(frozen=True, kw_only=True)
class Topic:
    """A heading with words, tables and plots."""

    heading: str
    words: str
    tables: tuple[Table, ...]
    plots: tuple[Plot, ...] = ()
