"""The report's section on arithmetic: kernels by property, errors of random tensors beside their closed form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from quantsuite.metrics.scale import MISSING
from quantsuite.records import ErrorPoint, PropertyResult
from quantsuite.reporting.checked import checked_kernels
from quantsuite.reporting.figures import ErrorPanel, Plot, plot_errors
from quantsuite.reporting.planted import planted_topic
from quantsuite.reporting.rows import unique
from quantsuite.reporting.tables import Table, fixed
from quantsuite.reporting.topics import Topic

SEVERITY = ("fails", "known failure", "within bound", "exact", "not supported", "not applicable")
"""What a cell of several schemes says: the first of these that any of them has."""
RAN = SEVERITY[:4]


@dataclass(frozen=True, kw_only=True)
class NumericsSection:
    """The topics that a run's records fill."""

    topics: tuple[Topic, ...]

    @property
    def plots(self) -> tuple[Plot, ...]:
        return tuple(plot for topic in self.topics for plot in topic.plots)


def numerics_section(properties: Sequence[PropertyResult], errors: Sequence[ErrorPoint]) -> NumericsSection | None:
    """The section, or ``None`` if there is nothing to say."""
    planted = [result for result in properties if result.planted]
    properties = [result for result in properties if not result.planted]
    topics = [
        *(_properties_topic(name, [r for r in properties if r.operation == name]) for name in _operations(properties)),
        *_reasons_topic(properties),
        *planted_topic(planted),
        *_accumulator_topic([result for result in properties if "bits" in result.details]),
        *(_study_topic(name, [p for p in errors if p.study == name]) for name in unique(p.study for p in errors)),
    ]
    return NumericsSection(topics=tuple(topics)) if topics else None


def _operations(properties: Sequence[PropertyResult]) -> list[str]:
    return unique(result.operation for result in properties)


def _properties_topic(operation: str, results: Sequence[PropertyResult]) -> Topic:
    names = unique(result.property for result in results)
    heads = ("Kernel", "Declares", "Schemes", "Not checked", *map(_spoken, names))
    rows, kinds = [], []
    for kernel in unique(result.contestant for result in results):
        own = [result for result in results if result.contestant == kernel]
        cells = [_property_cell([result for result in own if result.property == name]) for name in names]
        ran = {result.scheme for result in own if result.outcome in RAN}
        summary = checked_kernels(own)[0]
        declares = "; ".join(f"{_spoken(key)}: {value}" for key, value in _declared(own).items())
        missed = f"{len(summary.not_checked)} of {summary.total}" if summary.total else MISSING
        rows.append((kernel, declares or MISSING, str(len(ran)) if ran else MISSING, missed, *cells))
        kinds.append("worse" if any(result.outcome == "fails" for result in own) else "")
    return Topic(
        heading=f"Kernels: {operation}",
        words=(
            "Exact: bit for bit as the oracle decides. Within: the largest error over its proven bound, of all "
            "schemes that the kernel claims. Fails: with how many schemes of those that were run. n/a: no scheme "
            "that it claims has the property. Declares: in what the kernel says to differ from the defaults, dtypes "
            "where it does not take float32, bfloat16 and float16. Not checked: properties that were tried for none of "
            "the schemes and dtypes that have them."
        ),
        tables=(Table(heads=heads, rows=tuple(rows), labels=2, kinds=tuple(kinds)),),
    )


def _declared(results: Sequence[PropertyResult]) -> dict[str, str]:
    return {key: value for result in results for key, value in result.declares.items()}


def _spoken(name: str) -> str:
    return name.replace("_", " ")


def _property_cell(results: Sequence[PropertyResult]) -> str:
    found = unique(result.outcome for result in results)
    worst = next((outcome for outcome in SEVERITY if outcome in found), None)
    if worst is None:
        return MISSING
    if worst in ("fails", "known failure"):
        ran, so = ({result.scheme for result in results if result.outcome in such} for such in (RAN, (worst,)))
        return f"{worst} ({len(so)} of {len(ran)})"
    if worst == "within bound":
        factors = [result.factor for result in results if result.factor is not None]
        return f"within {max(factors):.3f}" if factors else "within"
    return {"not supported": "not supported here", "not applicable": "n/a"}.get(worst, worst)


def _reasons_topic(properties: Sequence[PropertyResult]) -> list[Topic]:
    told = [result for result in properties if result.outcome in ("fails", "known failure", "not supported")]
    if not told:
        return []
    rows = []
    for key in unique(map(_reason_key, told)):
        schemes = unique(result.scheme for result in told if _reason_key(result) == key)
        rows.append((key[0], _listed("schemes", schemes), *key[1:]))
    rows = _merged(rows)
    heads = ("Kernel", "Schemes", "Properties", "Outcome", "Note")
    words = "Why a check failed, was expected to, or did not run."
    rows = tuple(sorted(rows, key=lambda row: SEVERITY.index(row[3])))
    return [Topic(heading="Failures and what is not supported", words=words, tables=(Table(heads=heads, rows=rows),))]


def _reason_key(result: PropertyResult) -> tuple[str, str, str, str]:
    reason = f"follows from {_spoken(result.follows)}" if result.follows else result.reason or ""
    return (result.contestant, result.property, result.outcome, reason)


def _merged(rows: Sequence[tuple[str, ...]]) -> tuple[tuple[str, ...], ...]:
    """Rows that differ in the property alone as one, with all properties or how many they are."""
    merged: dict[tuple[str, ...], list[str]] = {}
    for kernel, schemes, name, outcome, reason in rows:
        merged.setdefault((kernel, schemes, outcome, reason), []).append(_spoken(name))
    return tuple(
        (kernel, schemes, _listed("properties", names), outcome, reason)
        for (kernel, schemes, outcome, reason), names in merged.items()
    )


def _listed(what: str, names: Sequence[str]) -> str:
    """All names, or how many they are if that is many."""
    return ", ".join(names) if len(names) < 4 else f"{len(names)} {what}"


def _accumulator_topic(results: Sequence[PropertyResult]) -> list[Topic]:
    if not results:
        return []
    rows = []
    for key in unique((r.contestant, r.environment.dtype, r.details["bits"]) for r in results):
        own = [r for r in results if (r.contestant, r.environment.dtype, r.details["bits"]) == key]
        partial = sorted({r.details["promotion"] for r in own if "promotion" in r.details})
        rows.append(
            (
                *key[:2],
                _listed("schemes", unique(r.scheme for r in own)),
                f"{key[2]:.0f}",
                ", ".join(f"{size:.0f}" for size in partial) or MISSING,
            )
        )
    heads = ("Kernel", "dtype", "Schemes", "Bits, at least", "Partial sums of, elements of K")
    words = (
        "How many significant bits a running sum over K keeps, measured with sums whose small terms survive only in a "
        "wide enough accumulator, and after how many elements small terms survive again: where partial sums are "
        "promoted to a wider sum, or kept side by side. Where codes span few binades (INT8, INT4, FP4) the large "
        "term is spread over many products, and sums kept side by side hold more together than each of them. FP8 "
        "tensor cores of the Ada and Hopper generations keep about 14 bits, of which DeepSeek-V3 adds partial sums "
        "of 128 elements in float32."
    )
    table = Table(heads=heads, rows=tuple(rows), labels=3)
    return [Topic(heading="Accumulator width", words=words, tables=(table,))]


def _study_topic(study: str, points: Sequence[ErrorPoint]) -> Topic:
    quantities = unique(point.quantity for point in points)
    panels = [
        ErrorPanel(title=quantity, x_label=study, points=tuple(point for point in points if point.quantity == quantity))
        for quantity in quantities
    ]
    slug = "-".join(["errors", *study.lower().replace(",", "").split()])
    drawable = any(not _is_single(panel) for panel in panels)
    caption = "Dots are measured on normal random tensors, lines are the closed form where one is known."
    plot = Plot(name=slug, title=f"Error by {study}", caption=caption, svg=plot_errors(panels)) if drawable else None
    return Topic(
        heading=f"Quantization error by {study}",
        words="Measured beside predicted; relative to the exact values.",
        tables=tuple(_study_table(study, panel) for panel in panels),
        plots=(plot,) if plot else (),
    )


def _is_single(panel: ErrorPanel) -> bool:
    """Whether each series is one point."""
    return len({point.series for point in panel.points}) == len(panel.points)


def _study_table(study: str, panel: ErrorPanel) -> Table:
    """A row for each ``x``, beside each series its prediction, where there is any; or a row for each single point."""
    x_head = f"{study[0].upper()}{study[1:]}"
    if _is_single(panel):
        points = sorted(panel.points, key=lambda point: (point.x, point.measured))
        lines = ((p.series, f"{p.x:,.3f}", _shape(p.shape), fixed(p.measured), fixed(p.predicted)) for p in points)
        heads = ("Scheme", x_head, "Shape", "measured", "predicted")
        return Table(title=panel.title, heads=heads, rows=tuple(lines), labels=1)
    heads = [x_head, "Shape"]
    columns = []
    for series in unique(point.series for point in panel.points):
        own = {(tuple(point.shape), point.x): point for point in panel.points if point.series == series}
        heads.append(f"{series}: measured")
        columns.append({key: point.measured for key, point in own.items()})
        if any(point.predicted is not None for point in own.values()):
            heads.append("predicted")
            columns.append({key: point.predicted for key, point in own.items()})
    rows = [
        (f"{key[1]:,.0f}", _shape(key[0]), *(fixed(column.get(key)) for column in columns))
        for key in unique((tuple(point.shape), point.x) for point in panel.points)
    ]
    return Table(title=panel.title, heads=tuple(heads), rows=tuple(rows), labels=0)


def _shape(sizes: Sequence[int]) -> str:
    return " x ".join(map(str, sizes))
