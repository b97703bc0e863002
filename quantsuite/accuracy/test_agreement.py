"""Simulated and real execution of a scheme are the same model."""

from itertools import groupby

import pytest

from quantsuite.gate import describe
from quantsuite.margins import Margins
from quantsuite.records import Key, Record
from quantsuite.statistics import compare


def test_simulated_and_real_agree(measured_so_far: list[Record]) -> None:
    """Neither execution is worse than the other by more than the margin."""
    cells = [r for r in measured_so_far if _is_comparable(r)]
    cells.sort(key=lambda record: (_scheme_of(record), record.key.execution))
    pairs = [tuple(group) for _, group in groupby(cells, key=_scheme_of)]
    pairs = [pair for pair in pairs if len(pair) == 2]
    if not pairs:
        pytest.skip("nothing was measured in both executions on enough items; run with --execution simulated,real")
    for one, other in pairs:
        for first, second in ((one, other), (other, one)):
            comparison = compare(first.metric, first.items, second.items, Margins())
            assert comparison.verdict != "worse", f"{second.subject.label} {second.task.name}: {describe(comparison)}"


def _scheme_of(record: Record) -> Key:
    return record.key._replace(execution="")


def _is_comparable(record: Record) -> bool:
    if not record.measured or record.subject.is_reference or not record.metric.is_paired:
        return False
    return len(record.items) > 1 and record.metric.interval(record.items).is_bounded
