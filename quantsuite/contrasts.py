"""Contrasts: two sets of records compared pair by pair, on the same items, in what they do not share."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from quantsuite.facets import FIELDS, KEY, PARTS, facets_of, parse_fields, place
from quantsuite.margins import Margins
from quantsuite.pairs import Pair, compare_records, noise_floor
from quantsuite.records import Record

_KNOWN = ", ".join(FIELDS)
_CONDITIONS = {
    "task": ("task version", "task file"),
    "metric": ("task version", "task file"),
    "engine": ("engine", "torch"),
    "device": ("device",),
    "dtype": ("dtype",),
    "head": ("quantized head",),
}
"""Conditions of a comparison that differ with a field: engines may need versions of torch of their own."""


class ContrastError(ValueError):
    """A contrast that cannot be read, or that a run has no pair for."""


@dataclass(frozen=True, kw_only=True)
class Selector:
    """Records by their fields; ``label`` is what a report calls them, the values of the fields unless given.

    Raises:
        ContrastError: if there is no field, or one is unknown.
    """

    fields: Mapping[str, str]
    label: str = ""

    def __post_init__(self) -> None:
        if not self.fields:
            raise ContrastError(f"a side without a field selects nothing; name one of {_KNOWN}")
        for name in self.fields:
            if name not in FIELDS:
                close = difflib.get_close_matches(name, FIELDS, n=1)
                hint = f"did you mean {close[0]!r}? " if close else ""
                raise ContrastError(f"unknown field {name!r}; {hint}known: {_KNOWN}")

    def __str__(self) -> str:
        return self.label or " ".join(value or "none" for value in self.fields.values())

    def matches(self, record: Record) -> bool:
        facets = facets_of(record)
        return all(facets[name] == value for name, value in self.fields.items())


@dataclass(frozen=True, kw_only=True)
class Contrast:
    """A question put to records: how does the candidate differ from the reference, all else equal?

    Args:
        name: a slug.
        question: as a heading.
        reference: selects the one side.
        candidate: selects the other.
        match: fields in which the two of a pair are equal; unless given, all that the sides leave open.
        across: the field of ``match`` that a table spreads over columns.
        words: below the heading.
        prominent: whether a report shows it with a plot.

    Raises:
        ContrastError: if both sides select the same, or a field to match is unknown or differs between the sides.
    """

    name: str
    question: str
    reference: Selector
    candidate: Selector
    match: tuple[str, ...] = ()
    across: str = ""
    words: str = ""
    prominent: bool = True

    def __post_init__(self) -> None:
        ours, theirs = self.reference.fields, self.candidate.fields
        if ours == theirs:
            raise ContrastError(f"both sides are {self.reference}; name what differs")
        object.__setattr__(self, "match", self.match or _open_fields({*ours, *theirs}))
        for name in (*self.match, *([self.across] if self.across else [])):
            if name not in FIELDS:
                raise ContrastError(f"unknown field {name!r} to match; known: {_KNOWN}")
            if name in self.differing:
                raise ContrastError(f"{name!r} differs between the sides, and cannot be matched too")

    @property
    def differing(self) -> set[str]:
        """Fields in which the sides differ."""
        ours, theirs = self.reference.fields, self.candidate.fields
        return {name for name in {*ours, *theirs} if ours.get(name) != theirs.get(name)}

    @property
    def crosses_settings(self) -> bool:
        """Whether the sides are of different engines, devices or dtypes, or one has a quantized head."""
        return bool(self.differing & {"engine", "device", "dtype", "head"})

    @property
    def freed(self) -> set[str]:
        """Conditions that may differ between the two of a pair."""
        wholes = {whole for whole, parts in PARTS.items() if self.differing & {*parts}}
        return {condition for name in self.differing | wholes for condition in _CONDITIONS.get(name, ())}


def _open_fields(named: set[str]) -> tuple[str, ...]:
    """The fields that tell records apart where some are given: of what is made of parts, the parts that are not."""
    found: list[str] = []
    for name in KEY:
        parts = PARTS.get(name, ())
        if name in named:
            continue
        if named & {*parts}:
            found += [part for part in parts if part not in named]
        elif name == "task" and "metric" in named:
            found.append("source")
        elif not (name == "plan" and named & {"scheme", *PARTS["scheme"]}):  # A plan is of its scheme.
            found.append(name)
    return tuple(found)


def find_pairs(records: Sequence[Record], contrast: Contrast, margins: Margins) -> list[Pair]:
    """Every pair of measured records of one model that a contrast asks for, in the order of what is matched.

    Raises:
        ContrastError: if a side selects two records that the contrast does not tell apart.
    """
    measured = [record for record in records if record.measured and record.metric.is_paired]
    reference, candidate = (_by_key(measured, contrast, side) for side in (contrast.reference, contrast.candidate))
    keys = [key for key in reference if key in candidate]
    keys.sort(key=lambda key: [place(name, value) for name, value in zip(contrast.match, key, strict=True)])
    found = []
    for key in keys:
        floor = noise_floor(candidate[key], records)
        comparison, note = compare_records(reference[key], candidate[key], margins, freed=contrast.freed, floor=floor)
        found.append(Pair(reference=reference[key], candidate=candidate[key], comparison=comparison, note=note))
    return found


def _by_key(records: Iterable[Record], contrast: Contrast, selector: Selector) -> dict[tuple[str, ...], Record]:
    found: dict[tuple[str, ...], Record] = {}
    for record in filter(selector.matches, records):
        facets = facets_of(record)
        key = tuple(facets[name] for name in contrast.match)
        if key in found:
            apart = [name for name, value in facets_of(found[key]).items() if facets[name] != value]
            raise ContrastError(
                f"contrast {contrast.question!r}: {selector} is {record} and {found[key]}; "
                f"name their {' or '.join(apart) or 'run'} too"
            )
        found[key] = record
    return found


def parse_contrast(text: str) -> Contrast:
    """A contrast such as ``scheme=int8-row vs scheme=fp8-row``: the reference, then the candidate.

    A side may have several fields, separated by blanks; a value with blanks stands in quotes.

    Raises:
        ContrastError: in one line, if it is none.
    """
    sides = re.split(r"\s+vs\s+", text.strip())
    if len(sides) != 2:
        raise ContrastError(f"contrast {text!r} has not two sides; write 'scheme=int8-row vs scheme=fp8-row'")
    try:
        reference, candidate = (Selector(fields=parse_fields(side)) for side in sides)
        question = f"{candidate} against {reference}"
        return Contrast(name=slug(question), question=question, reference=reference, candidate=candidate)
    except ValueError as error:
        raise ContrastError(f"contrast {text!r}: {error}") from error


def slug(text: str) -> str:
    """Text as a part of a file's name."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "contrast"


def check_contrasts(records: Sequence[Record], contrasts: Iterable[Contrast]) -> None:
    """Refuse a contrast that no model of a run has a pair for.

    Raises:
        ContrastError: naming a value that no record has, or what no two records share.
    """
    measured = [record for record in records if record.measured and record.metric.is_paired]
    models = dict.fromkeys(record.subject.model for record in measured)
    for contrast in contrasts:
        for selector in (contrast.reference, contrast.candidate):
            if not any(map(selector.matches, measured)):
                raise ContrastError(f"contrast {contrast.question!r}: {_missing(selector, measured)}")
        groups = ([record for record in measured if record.subject.model == model] for model in models)
        sides = (
            [_by_key(group, contrast, side).keys() for side in (contrast.reference, contrast.candidate)]
            for group in groups
        )
        if not any(one & other for one, other in list(sides)):
            raise ContrastError(
                f"contrast {contrast.question!r}: no two records have equal {', '.join(contrast.match)}"
            )


def _missing(selector: Selector, records: Sequence[Record]) -> str:
    for name, value in selector.fields.items():
        known = dict.fromkeys(facets_of(record)[name] or "none" for record in records)
        if value not in known:
            return f"no measured record has {name} {value!r}; they have {', '.join(known) or 'none at all'}"
    return f"no measured record is {selector} in {', '.join(selector.fields)} at once"


FORMATS = Contrast(
    name="formats",
    question="INT8 against FP8",
    reference=Selector(fields={"format": "int8", "rest": "", "plan": ""}, label="INT8"),
    candidate=Selector(fields={"format": "fp8", "rest": "", "plan": ""}, label="FP8"),
    across="execution",
    words="Paired change from INT8 to FP8 at equal granularity and execution.",
)
EXECUTIONS = Contrast(
    name="executions",
    question="Simulated against real",
    reference=Selector(fields={"execution": "simulated"}),
    candidate=Selector(fields={"execution": "real"}),
    words="Simulated quantizes, dequantizes and multiplies in the model's dtype; "
    "real stores codes and multiplies with a kernel.",
    prominent=False,
)
RECIPES = Contrast(
    name="recipes",
    question="Direct against generate",
    reference=Selector(fields={"recipe": "direct"}),
    candidate=Selector(fields={"recipe": "generate"}),
    words="Direct takes the likeliest of the answers' letters; generate reads what the model writes.",
    prominent=False,
)


STANDARD = (FORMATS, EXECUTIONS, RECIPES)
"""What every report asks, beside the engines that there are."""


def engine_contrasts(records: Sequence[Record]) -> list[Contrast]:
    """Each engine of some records against the first, with the same scheme and execution."""
    first, *others = dict.fromkeys(record.subject.engine for record in records)
    return [
        Contrast(
            name=f"engine-{slug(other)}",
            question=f"{other} against {first}",
            reference=Selector(fields={"engine": first}),
            candidate=Selector(fields={"engine": other}),
            words="The same scheme and execution in two engines.",
            prominent=False,
        )
        for other in others
    ]
