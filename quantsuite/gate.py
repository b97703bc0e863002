"""Records against baselines: what passes, and why the rest does not."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from quantsuite.asked import Asked, asked_by, cell_of, not_run
from quantsuite.identity import contradiction, identity_differences
from quantsuite.margins import Margins, Mode
from quantsuite.pairs import noise_floor
from quantsuite.records import Record, differences
from quantsuite.scheme import REFERENCE_NAME
from quantsuite.statistics import Comparison, compare

Status = Literal["pass", "worse", "other", "undecided", "absent", "not measured", "not comparable"]


@dataclass(frozen=True, kw_only=True)
class Check:
    """One cell of the gate: its status, the comparison if there was one, and a reason if it fails."""

    label: str
    task: str
    status: Status
    comparison: Comparison | None = None
    reason: str | None = None


@dataclass(frozen=True, kw_only=True)
class GateResult:
    """All cells of a gate.  It passes if at least one was compared and none is a failure.

    ``without_baseline`` counts the records of the run that no baseline is of; ``notes`` are lines on what was not
    compared though nothing is wrong with it.
    """

    checks: tuple[Check, ...]
    mode: Mode
    without_baseline: int = 0
    notes: tuple[str, ...] = ()

    @property
    def failures(self) -> tuple[Check, ...]:
        accepted = {"pass"} if self.mode == "strict" else {"pass", "undecided"}
        return tuple(check for check in self.checks if check.status not in accepted)

    @property
    def passed(self) -> bool:
        return not self.failures and any(check.comparison is not None for check in self.checks)

    @property
    def summary(self) -> str:
        compared = sum(check.comparison is not None for check in self.checks)
        if not compared:
            return "gate failed: nothing was compared; an empty comparison is no evidence"
        if not self.failures:
            rest = f"; {self.without_baseline} of the run have no baseline" if self.without_baseline else ""
            return f"gate passed: {compared} of {len(self.checks)} cells compared, none worse{rest}"
        return f"gate failed: {len(self.failures)} of {len(self.checks)} cells"


def check_cell(candidate: Record | None, baseline: Record, margins: Margins, *, floor: float | None = None) -> Check:
    """Compare one cell; absent, unmeasured and incomparable ones never pass.

    Args:
        candidate: the run's cell.
        baseline: reviewed.
        margins: the losses that count as none.
        floor: the noise floor of both, if their values are distances from a reference.
    """

    def result(status: Status, reason: str | None = None, comparison: Comparison | None = None) -> Check:
        return Check(
            label=(candidate or baseline).title,
            task=baseline.task.name,
            status=status,
            reason=reason,
            comparison=comparison,
        )

    if candidate is None:
        return result("absent", "the baseline has this cell, the run has not; run it, or remove it in review")
    if candidate.items is None or candidate.outcome != "passed":
        return result("not measured", f"{candidate.outcome}: {candidate.reason}")
    if baseline.items is None:
        return result("not measured", f"the baseline itself: {baseline.outcome}: {baseline.reason}")
    for record, of in ((baseline, "the baseline itself: "), (candidate, "")):
        if reason := contradiction(record):
            return result("not comparable", of + reason)
    # In another dtype the hash is another too.
    hashed = bool(baseline.subject.model_sha256) and candidate.environment.dtype == baseline.environment.dtype
    if different := differences(candidate, baseline, with_model=hashed):
        if hashed and candidate.subject.model_sha256 != baseline.subject.model_sha256:
            different.append("the weights or the configuration of the model are others: measure the baseline again")
        return result("not comparable", "; ".join(different))
    if candidate.cell == baseline.cell and (different := identity_differences(candidate, baseline)):
        return result("not comparable", "; ".join(different))
    if (ours := candidate.task.metric) != (theirs := baseline.task.metric):
        return result("not comparable", f"the metric is {ours}, not {theirs}")
    if baseline.subject.is_reference and baseline.metric.of_reference:
        return result("pass")  # A noise floor is the machine's, and widens the band of the others.
    if baseline.metric.in_words is not None:
        return result("pass")  # What it finds fails its own test, and there is no more to compare.
    try:
        comparison = compare(baseline.metric, baseline.items, candidate.items, margins, floor=floor)
    except ValueError as error:
        return result("not comparable", str(error))
    if comparison.too_few:
        return result("not comparable", comparison.too_few)
    if comparison.verdict == "equivalent or better":
        return result("pass", comparison=comparison)
    return result(comparison.verdict, describe(comparison), comparison)


def describe(comparison: Comparison) -> str:
    """A comparison as a sentence."""
    loss = comparison.loss
    if comparison.of_reference:
        estimate, low, high = (f"{round(math.exp(each), 6):.3g}" for each in (loss.estimate, loss.low, loss.high))
        band = f"{math.exp(-comparison.margin):.2f} to {math.exp(comparison.margin):.2f}"
        return f"{estimate} times the drift [{low}, {high}] against {band} of right code; {_floor_words(comparison)}"
    text = f"loss {loss.estimate:+.4f} [{loss.low:+.4f}, {loss.high:+.4f}] against a margin of {comparison.margin}"
    if comparison.items_to_decide is not None:
        text += f"; about {comparison.items_to_decide:,} items would decide, there are {comparison.items:,}"
    return text


def _floor_words(comparison: Comparison) -> str:
    return "no noise floor measured" if comparison.floor is None else f"noise floor {comparison.floor:.2g} nats"


def gate(
    records: Sequence[Record],
    baselines: Iterable[Record],
    *,
    mode: Mode = "worse",
    margins: Margins | None = None,
    asked: Collection[Asked] | None = None,
    complete: bool = False,
) -> GateResult:
    """Compare the baseline's cells with the run's of the same model, task, scheme and execution.

    A cell that the run has not is *absent*, and fails, if the run was asked for it.

    Args:
        records: the run under test.
        baselines: reviewed records.
        mode: ``worse`` fails on cells that are worse; ``strict`` also on undecided ones.
        margins: the losses that count as none.
        asked: what the run was asked for; ``None``: what :func:`~quantsuite.asked.asked_by` its records tell.
        complete: whether all of the baseline was asked for.
    """
    margins = margins or Margins()
    baselines = list(baselines)
    asked = asked_by(records) if asked is None else asked
    every = _pairs(records, baselines)
    pairs = [(found, of) for found, of in every if complete or found is not None or cell_of(of) in asked]
    left = [] if complete else [of for found, of in every if found is None and cell_of(of) not in asked]
    checks = [
        check_cell(candidate, baseline, margins, floor=_floor(candidate, records, baseline, baselines))
        for candidate, baseline in pairs
    ]
    compared = {candidate.key for candidate, _ in pairs if candidate is not None}
    return GateResult(
        checks=tuple(checks),
        mode=mode,
        without_baseline=sum(record.metric.is_paired and record.key not in compared for record in records),
        notes=tuple(note for note in (_unidentified(pairs), not_run(baselines, left)) if note),
    )


def _unidentified(pairs: Sequence[tuple[Record | None, Record]]) -> str:
    """One line on cells whose baseline does not say what stood in the model; empty if all do."""
    without = sum(found is not None and of.identity is None for found, of in pairs)
    return f"baseline without identity in {without} of {len(pairs)} cells: measure it again" if without else ""


def _floor(
    candidate: Record | None, records: Sequence[Record], baseline: Record, baselines: Sequence[Record]
) -> float | None:
    """The larger noise floor of two runs."""
    sides = [(baseline, baselines)] + ([(candidate, records)] if candidate is not None else [])
    return max((found for side in sides if (found := noise_floor(*side)) is not None), default=None)


def _pairs(records: Sequence[Record], baselines: Sequence[Record]) -> list[tuple[Record | None, Record]]:
    """Each baseline with the record of its key, and with those of its cell that have no baseline of their own.

    So another kernel is held to the cell's baseline that names none; a record of another engine, device or dtype is so
    only where there is none of the baseline's own.  A record stands in for one baseline alone.
    """
    by_key = {record.key: record for record in records}
    known, taken = {baseline.key for baseline in baselines}, set()
    pairs: list[tuple[Record | None, Record]] = []
    for baseline in baselines:
        exact = by_key.get(baseline.key)
        found = [] if exact is None else [exact]
        for record in records:
            alike = record.cell == baseline.cell and record.key not in known | taken
            alike = alike and baseline.subject.kernel in ("", record.subject.kernel)
            if alike and (exact is None or record.key.setting == baseline.key.setting):
                found.append(record)
                taken.add(record.key)
        pairs += [(record, baseline) for record in found] or [(None, baseline)]
    return pairs


def gate_against_reference(
    records: Sequence[Record], *, mode: Mode = "worse", margins: Margins | None = None
) -> GateResult:
    """Compare every quantized cell with the reference of the same model and task in the same run."""
    references = {record.key: record for record in records if record.subject.is_reference}
    margins = margins or Margins()
    checks = []
    for record in records:
        if record.subject.is_reference or record.metric.of_reference:
            continue
        reference = references.get(record.key.reference)
        if reference is None:
            check = Check(
                label=record.title,
                task=record.task.name,
                status="absent",
                reason=f"the run has no {record.environment.dtype} of this model and task; "
                f"add {REFERENCE_NAME} to --scheme",
            )
        else:
            check = check_cell(record, reference, margins)
        checks.append(check)
    return GateResult(checks=tuple(checks), mode=mode)
