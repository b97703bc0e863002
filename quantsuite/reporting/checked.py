"""What was checked of each kernel: properties that hold, that fail, and that were not tried, with the reasons."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from quantsuite.records import PropertyResult

DTYPES = ("float32", "bfloat16", "float16")
"""What users of kernels multiply in."""
NAMED, LINES = 6, 4
"""How many properties a line names, and how many reasons a kernel's summary has."""


@dataclass(frozen=True, kw_only=True)
class Checked:
    """Of one kernel.

    Args:
        kernel: its name.
        hold: properties that hold wherever they apply.
        fail: properties that fail somewhere, unexpectedly.
        known: properties whose failures are known.
        not_checked: why properties were not checked at all, by property.
        partly: properties that were checked for some schemes or dtypes, by the reason why not for others, and those
            schemes.
        untried: of the usual dtypes those that the kernel does not declare.
        declared: the dtypes that it does, where some are untried.
    """

    kernel: str
    hold: Sequence[str]
    fail: Sequence[str]
    known: Sequence[str]
    not_checked: Mapping[str, str]
    partly: Mapping[tuple[str, Sequence[str]], Sequence[str]]
    untried: Sequence[str]
    declared: str

    @property
    def total(self) -> int:
        return len(self.hold) + len(self.fail) + len(self.known) + len(self.not_checked)

    @property
    def count(self) -> str:
        """``9 of 14 properties hold, 2 fail, 3 not checked``."""
        counts = {"fail": self.fail, "known to fail": self.known, "not checked": self.not_checked}
        others = [f"{len(names)} {what}" for what, names in counts.items() if names]
        return ", ".join([f"{len(self.hold)} of {self.total} properties hold", *others])

    def lines(self) -> Iterator[str]:
        """The counts; each reason with the properties that were not checked for it; the dtypes that were not tried."""
        yield f"{self.kernel}: {self.count}"
        told = [*self._never(), *self._sometimes()]
        yield from told[:LINES]
        if len(told) > LINES:
            yield f"  not checked: {len(told) - LINES} further reasons, which the report lists"
        if self.untried:
            were = "were" if len(self.untried) > 1 else "was"
            yield f"  dtypes declared: {self.declared} only; {' and '.join(self.untried)} {were} not tried"

    def _never(self) -> Iterator[str]:
        by_reason: dict[str, list[str]] = {}
        for name, reason in self.not_checked.items():
            by_reason.setdefault(reason, []).append(name)
        for reason, names in by_reason.items():
            yield f"  not checked: {reason} ({_listed(names)})"

    def _sometimes(self) -> Iterator[str]:
        for (reason, schemes), names in self.partly.items():
            yield f"  not checked of {_listed(schemes)}: {reason} ({_listed(names)})"

    @property
    def is_complete(self) -> bool:
        """Whether everything that applies was checked."""
        return not self.not_checked and not self.partly


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"{', '.join(names[:NAMED])}{more}"


def checked_kernels(results: Sequence[PropertyResult]) -> list[Checked]:
    """A summary of each kernel.  What a scheme or a dtype does not have is left out of account."""
    names = dict.fromkeys(result.contestant for result in results)
    return [_checked(name, [result for result in results if result.contestant == name]) for name in names]


def reason_unchecked(result: PropertyResult) -> str | None:
    """Why a property that applies was not checked, or ``None`` if it was."""
    if result.follows:
        return f"follows from {result.follows}"
    return result.reason if result.outcome == "not supported" else None


def _checked(kernel: str, results: Sequence[PropertyResult]) -> Checked:
    found: dict[str, dict[str, PropertyResult]] = {"fail": {}, "known": {}, "hold": {}, "unchecked": {}}
    schemes: dict[str, dict[str, dict[str, None]]] = {}
    for result in results:
        if result.outcome == "not applicable":
            continue
        if (reason := reason_unchecked(result)) is not None:
            schemes.setdefault(result.property, {}).setdefault(reason, {})[result.scheme] = None
        kind = "unchecked" if reason else {"fails": "fail", "known failure": "known"}.get(result.outcome, "hold")
        found[kind].setdefault(result.property, result)
    taken: set[str] = set()
    for names in found.values():
        for name in taken & set(names):
            del names[name]
        taken |= set(names)
    partly: dict[tuple[str, Sequence[str]], list[str]] = {}
    for name, reasons in schemes.items():
        for reason, of in reasons.items() if name not in found["unchecked"] else ():
            partly.setdefault((reason, tuple(of)), []).append(name)
    declared = next((result.declares["dtypes"] for result in results if "dtypes" in result.declares), "")
    return Checked(
        kernel=kernel,
        hold=list(found["hold"]),
        fail=list(found["fail"]),
        known=list(found["known"]),
        not_checked={name: reason_unchecked(result) or "" for name, result in found["unchecked"].items()},
        partly=partly,
        untried=[name for name in DTYPES if name not in re.findall(r"\w+", declared)] if declared else [],
        declared=declared,
    )
