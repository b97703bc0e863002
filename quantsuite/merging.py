"""What becomes of the records in a run file as a run adds its own."""

from __future__ import annotations

from collections.abc import Collection

import msgspec

from quantsuite.records import Environment, ErrorPoint, PropertyResult, Record, Run


def with_records(run: Run, own: Collection[Record]) -> Run:
    """A run file's content with a run's own records, in place of those of the same cell.

    Earlier records of a model that ``own`` loaded are left out if they are of other weights or of another
    environment; those of other models and other cells stay.
    """
    loaded: list[tuple[str, str, Environment]] = []
    for record in own:
        provenance = (record.subject.model, record.subject.model_sha256, record.environment)
        if record.subject.model_sha256 and provenance not in loaded:
            loaded.append(provenance)
    records = {record.cell: record for record in run.records if _stays_beside(record, loaded)}
    records |= {record.cell: record for record in own}
    return msgspec.structs.replace(run, records=list(records.values()))


def _stays_beside(record: Record, loaded: list[tuple[str, str, Environment]]) -> bool:
    """Whether it is of a model that was not loaded, or as one that was; a cell may end before its model is loaded."""
    ours = [(sha256, environment) for model, sha256, environment in loaded if model == record.subject.model]
    return not ours or any(
        record.subject.model_sha256 in ("", sha256) and record.environment == environment
        for sha256, environment in ours
    )


def with_numerics(run: Run, properties: Collection[PropertyResult], errors: Collection[ErrorPoint]) -> Run:
    """A run file's content with checked properties and measured errors, in place of those of the same key."""
    all_properties = {result.key: result for result in (*run.properties, *properties)}
    all_errors = {point.key: point for point in (*run.errors, *errors)}
    return msgspec.structs.replace(run, properties=list(all_properties.values()), errors=list(all_errors.values()))


def lost(before: Run, after: Run) -> list[Record]:
    """What was measured before and is not in ``after``, nor measured again there alike."""
    there = {record.identity for record in after.records if record.measured}
    return [record for record in before.records if record.measured and record.identity not in there]
