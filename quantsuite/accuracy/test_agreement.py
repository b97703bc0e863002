"""Simulated and real execution of a scheme are the same model."""

from itertools import groupby

import pytest

from quantsuite.gate import describe
from quantsuite.records import Divergences, Record
from quantsuite.statistics import Margins, compare


def test_simulated_and_real_agree(measured_so_far: list[Record]) -> None:
    """Neither execution is worse than the other by more than the margin."""
    cells = [r for r in measured_so_far if r.measured and not isinstance(r.items, Divergences) and r.subject.execution]
    cells.sort(key=lambda record: (record.cell[:3], record.cell[3]))
    pairs = [tuple(group) for _, group in groupby(cells, key=lambda record: record.cell[:3])]
    pairs = [pair for pair in pairs if len(pair) == 2]
    if not pairs:
        pytest.skip("no scheme was measured in both executions; run with --execution simulated,real")
    for one, other in pairs:
        for first, second in ((one, other), (other, one)):
            comparison = compare(first.items, second.items, first.metric.better, Margins())
            assert comparison.verdict != "worse", f"{second.subject.label} {second.metric.name}: {describe(comparison)}"
