"""Whether a record is of what its scheme says, and two are of the same: by what stood in the model."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from quantsuite.records import Record
from quantsuite.scheme import REFERENCE_NAME, Scheme


def contradiction(record: Record) -> str | None:
    """Why what stood in the model is not what the record's scheme says; ``None`` if it is, or is not known."""
    identity, scheme = record.identity, record.subject.scheme
    if identity is None:
        return None
    if record.subject.is_reference:
        found = f"the quantized part is {_counted(identity.schemes)}, {REFERENCE_NAME} has none"
        return found if identity.matrices else None
    if not identity.matrices:
        # A plan of layers alone, such as bf16@mine, is named by a scheme without a weight.
        planned = record.subject.variant.scheme.weight is not None
        return f"no matrix is quantized, the scheme is {scheme}" if planned else None
    widths = [weight.format.bits for name in identity.schemes if (weight := Scheme.parse(name).weight) is not None]
    if widths and identity.bits is not None and identity.bits < min(widths):
        return f"a weight takes {identity.bits:.6g} bits, {', '.join(identity.schemes)} at least {min(widths)}"
    return None


def identity_differences(candidate: Record, baseline: Record) -> list[str]:
    """In what two records' models differ, each with both values; nothing if the baseline does not say.

    What a kernel decides is compared between records of the same chosen kernel, or of none; the kernels that an
    engine chose by itself, between equal hardware.
    """
    if baseline.identity is None:
        return []
    if candidate.identity is None:
        return ["the run's record has no identity, the baseline's has: measure it anew with --fresh"]
    return [f"{name} is {ours}, not {theirs}" for name, ours, theirs in _compared(candidate, baseline)]


def _compared(candidate: Record, baseline: Record) -> Iterator[tuple[str, str, str]]:
    ours, theirs = candidate.identity, baseline.identity
    assert ours is not None and theirs is not None
    if ours.schemes != theirs.schemes:
        yield "the quantized part", _counted(ours.schemes), _counted(theirs.schemes)
    yield from _numbers("the share of parameters quantized", ours.share, theirs.share, "")
    if candidate.subject.kernel != baseline.subject.kernel:
        return
    if ours.storage != theirs.storage:
        yield "the storage", _counted(ours.storage), _counted(theirs.storage)
    yield from _numbers("the size of all weights", candidate.weight_bytes, baseline.weight_bytes, " bytes")
    yield from _numbers("the size of a quantized weight", ours.bits, theirs.bits, " bits")
    if candidate.environment.hardware != baseline.environment.hardware:
        return
    if ours.kernels != theirs.kernels:
        yield "the kernel", _counted(ours.kernels), _counted(theirs.kernels)
    if (one := ours.decode or ours.kernels) != (other := theirs.decode or theirs.kernels):
        yield "the kernel of a single token", _counted(one), _counted(other)


def _numbers(name: str, ours: float | None, theirs: float | None, unit: str) -> Iterator[tuple[str, str, str]]:
    """Those of one name, if both are known and differ by more than the last digits of a sum."""
    if ours is not None and theirs is not None and not math.isclose(ours, theirs, rel_tol=1e-9):
        yield name, f"{ours:,.10g}{unit}", f"{theirs:,.10g}{unit}"


def _counted(counts: Mapping[str, int]) -> str:
    """``21 matrices of int8-row``."""
    nouns = ((name, f"{count:,} {'matrix' if count == 1 else 'matrices'}") for name, count in counts.items())
    return ", ".join(f"{matrices} of {name}" for name, matrices in nouns) or "none"
