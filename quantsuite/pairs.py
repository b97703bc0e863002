"""Two records of the same items, compared item by item, or the reason why they cannot be."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from quantsuite.margins import Margins
from quantsuite.records import Record, differences
from quantsuite.statistics import Comparison, compare


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two records compared with each other: the comparison, or the reason why there is none."""

    reference: Record
    candidate: Record
    comparison: Comparison | None
    note: str | None


def noise_floor(record: Record, records: Iterable[Record]) -> float | None:
    """The reference's distance from itself on the same items, which rounds in another order; ``None`` if it has none.

    Args:
        record: of a metric whose values are distances from the reference.
        records: of its run.
    """
    if not record.metric.of_reference:
        return None
    key = record.key.reference
    found = (each for each in records if each.measured and each.key._replace(task=key.task) == key)
    return next((each.value for each in found if (each.metric, each.dataset) == (record.metric, record.dataset)), None)


def compare_records(
    reference: Record | None,
    candidate: Record,
    margins: Margins,
    *,
    freed: Iterable[str] = (),
    floor: float | None = None,
) -> tuple[Comparison | None, str | None]:
    """The paired comparison, or why there is none.

    Args:
        reference: of the same task, or of another on the same items.
        candidate: a record.
        margins: the losses that count as none.
        freed: names of conditions that may differ, since they are what is compared.
        floor: the noise floor of both, if their values are distances from a reference.
    """
    if reference is None:
        return None, f"no {candidate.environment.dtype} in this run"
    if reference.items is None or candidate.items is None:
        missing = reference if reference.items is None else candidate
        return None, f"{missing.title} was not measured"
    if different := differences(candidate, reference, freed=freed, with_model=True):
        return None, f"not comparable with {reference.title}: {'; '.join(different)}"
    try:
        metric, other = candidate.metric, reference.metric
        return compare(metric, reference.items, candidate.items, margins, reference_metric=other, floor=floor), None
    except ValueError as error:
        return None, f"not comparable with {reference.title}: {error}"
