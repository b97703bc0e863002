"""Contrasts as tables."""

from __future__ import annotations

from collections.abc import Sequence

from quantsuite.contrasts import Selector
from quantsuite.facets import facets_of
from quantsuite.metrics.scale import MISSING
from quantsuite.pairs import Pair
from quantsuite.records import Record
from quantsuite.reporting.analysis import ContrastAnalysis
from quantsuite.reporting.rows import unique
from quantsuite.reporting.tables import Table, suffix
from quantsuite.reporting.wording import capital

_OF_TASKS = ("task", "source", "recipe", "metric")


def row_of(found: ContrastAnalysis, pair: Pair) -> tuple[str, ...]:
    """What a pair's row is called: what is equal of the two, where it tells them from other pairs."""
    return tuple(_shown(name, pair) for name in row_fields(found))


def _shown(name: str, pair: Pair) -> str:
    if name != "scheme":
        return facets_of(pair.reference)[name] or MISSING
    names = {pair.reference.scheme, pair.candidate.scheme}
    return pair.reference.scheme if len(names) == 1 else "unquantized"


def sides(found: ContrastAnalysis) -> tuple[str, str]:
    """What the reference and the candidate are called."""
    contrast, pair = found.contrast, found.pairs[0]
    return _side(contrast.reference, pair.reference), _side(contrast.candidate, pair.candidate)


def question(found: ContrastAnalysis) -> str:
    """The contrast as a heading; where it was made of the sides, of what they are called."""
    contrast, (reference, candidate) = found.contrast, sides(found)
    made = f"{contrast.candidate} against {contrast.reference}"
    return f"{candidate} against {reference}" if contrast.question == made else contrast.question


def _side(selector: Selector, record: Record) -> str:
    """Its label; without one the values of its fields, the scheme as a person reads it."""
    if selector.label or "scheme" not in selector.fields:
        return str(selector)
    return str(Selector(fields={**selector.fields, "scheme": record.scheme}))


def row_fields(found: ContrastAnalysis) -> list[str]:
    """The fields that tell rows apart, or one that all have in common."""
    open_fields = [name for name in found.contrast.match if name not in (*_OF_TASKS, found.contrast.across)]
    values = {name: {facets_of(pair.reference)[name] for pair in found.pairs} for name in open_fields}
    first = next((name for name in open_fields if values[name] != {""}), "scheme")
    return [name for name in open_fields if name == first or len(values[name]) > 1] or [first]


def column_of(found: ContrastAnalysis, pair: Pair) -> str:
    """The value that a pair's column stands for; empty if there is one column."""
    return facets_of(pair.reference)[found.contrast.across] if found.contrast.across else ""


def contrast_table(found: ContrastAnalysis) -> Table:
    """The change from the reference to the candidate, pair by pair."""
    names = row_fields(found)
    columns = unique(column_of(found, pair) for pair in found.pairs)
    pairs = {(row_of(found, pair), column_of(found, pair)): pair for pair in found.pairs}
    with_flips = not found.contrast.across
    heads = [capital(name) for name in names]
    reference, candidate = sides(found)
    reference = capital(reference) if reference.isalpha() else reference
    change = f"{reference} to {candidate}, {found.metric.scale.change_unit}"
    for column in columns:
        flips = [f"Right to wrong{suffix(column)}", f"Wrong to right{suffix(column)}"] if with_flips else []
        heads += [f"{change}{suffix(column)}", *flips, f"Finding{suffix(column)}"]
    rows = []
    for row in unique(row_of(found, pair) for pair in found.pairs):
        cells = list(row)
        for column in columns:
            cells += _cells(found, pairs.get((row, column)), with_flips=with_flips)
        rows.append(tuple(cells))
    return _without_empty(Table(heads=tuple(heads), rows=tuple(rows), labels=len(names)))


def _cells(found: ContrastAnalysis, pair: Pair | None, *, with_flips: bool) -> list[str]:
    missing = [MISSING, MISSING] if with_flips else []
    if pair is None:
        return [MISSING, *missing, "one of the two was not measured"]
    if pair.comparison is None:
        return [MISSING, *missing, pair.note or ""]
    comparison = pair.comparison
    flips = [MISSING if number is None else str(number) for number in (comparison.lost, comparison.gained)]
    change = pair.candidate.metric.scale.change_interval(comparison.change)
    return [change, *(flips if with_flips else ()), finding(found, pair)]


def finding(found: ContrastAnalysis, pair: Pair) -> str:
    """Which of the two is better, or that they cannot be told apart."""
    if pair.comparison is None:
        return pair.note or ""
    loss = pair.comparison.loss
    if pair.comparison.too_few:
        return pair.comparison.too_few
    if pair.comparison.within_floor:
        return "not distinguishable: nearer than the noise floor"
    if not pair.comparison.is_distinguishable:
        return f"not distinguishable at n={pair.comparison.items:,}"
    reference, candidate = sides(found)
    return f"{reference if loss.low > 0 else candidate} better"


def _without_empty(table: Table) -> Table:
    """The table without the columns of flips that say nothing."""
    keep = [
        index
        for index in range(len(table.heads))
        if not table.heads[index].startswith(("Right to", "Wrong to")) or _says(table.rows, index)
    ]
    return Table(
        heads=tuple(table.heads[index] for index in keep),
        rows=tuple(tuple(row[index] for index in keep) for row in table.rows),
        labels=table.labels,
    )


def _says(rows: Sequence[Sequence[str]], index: int) -> bool:
    return any(row[index] not in ("", MISSING) for row in rows)
