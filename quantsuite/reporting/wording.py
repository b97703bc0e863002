"""How numbers, names and lists are written."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from quantsuite.margins import Margins
from quantsuite.metrics import Metric
from quantsuite.metrics.scale import MISSING
from quantsuite.records import Record
from quantsuite.scheme import REFERENCE_NAME


def approximately(number: int) -> str:
    """A number of two significant digits."""
    digits = max(0, len(str(number)) - 2)
    return f"{round(number, -digits):,}"


def enumerate_variants(records: Iterable[Record]) -> str:
    """``int8-tensor (simulated, real), fp8-row (real)``."""
    executions: dict[str, list[str]] = {}
    for record in records:
        found = executions.setdefault(record.scheme, [])
        if (record.subject.execution or "") not in found:
            found.append(record.subject.execution or "")
    return ", ".join(
        f"{name} ({', '.join(sorted(found, reverse=True))})" if any(found) else name
        for name, found in executions.items()
    )


def joined(parts: Sequence[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return " and ".join(part for part in (", ".join(parts[:-1]), parts[-1]) if part) if parts else ""


def count(number: int, noun: str) -> str:
    """``1 question``, ``1,000 questions``."""
    return f"{number:,} {noun.removesuffix('s') if number == 1 else noun}"


def margins_of(metrics: Iterable[Metric], margins: Margins) -> str:
    """``1 point, 0.01 ln PPL``, of changes from bf16: each once, with the metric's name where one unit has several."""
    paired = {metric.name: metric for metric in metrics if metric.is_paired and not metric.of_reference}
    found = [(paired[name].scale, margins.of(paired[name]), name) for name in sorted(paired)]
    sizes: dict[str, set[float]] = {}
    for scale, margin, _ in found:
        sizes.setdefault(scale.change_unit, set()).add(margin)
    shown = (
        scale.margin(margin) + (f" of {name}" if len(sizes[scale.change_unit]) > 1 else "")
        for scale, margin, name in found
    )
    return ", ".join(dict.fromkeys(shown))


def noise_floor_sentence(metric: Metric, floor: float | None) -> str | None:
    """The reference's distance from itself, of a metric whose values are distances from it."""
    if not metric.of_reference:
        return None
    if floor is None:
        return f"noise floor: not measured; add {REFERENCE_NAME} to --scheme"
    how = f"{REFERENCE_NAME} against itself, one sequence at a time in another order"
    return f"noise floor: {floor:.2g} {metric.unit} ({how})"


def capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def mebibytes(size: int | None) -> str:
    return MISSING if size is None else f"{size / 2**20:,.2f}"


def percent(ratio: float | None) -> str:
    return MISSING if ratio is None else f"{100 * ratio:.1f} %"


def unquantized_share(record: Record) -> str:
    """What a scheme leaves of a model in its own dtype; empty for the reference."""
    if record.unquantized is None or record.subject.is_reference:
        return ""
    kinds = "embeddings, norms, biases, routers" + ("" if record.subject.head else ", head")
    return f"{percent(record.unquantized)} of the parameters ({kinds}), in {record.environment.dtype}"
