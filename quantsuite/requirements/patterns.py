"""Which models, schemes and tasks a row is of, as names, globs and words."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from quantsuite.facets import PARTS, parse_fields, scheme_facets
from quantsuite.formats import FORMATS
from quantsuite.granularity import parse_granularity
from quantsuite.scheme import BLOCK_FORMATS, EXECUTIONS, REFERENCE_NAME, Scheme, Variant
from quantsuite.tiny import EMBEDDED

FIELDS = ("scheme", *PARTS["scheme"], "execution")
"""Fields of a contrast that tell schemes of a run apart."""
_WORD = re.compile(r"w(\d+)(?:a(\d+))?")
_GLOB = re.compile(r"[*?[]")


def is_glob(text: str) -> bool:
    return _GLOB.search(text) is not None


def unknown(what: str, name: str, known: Iterable[str]) -> str:
    """A message on a name that there is not, with the nearest and all that there are."""
    known = list(known)
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"unknown {what} {name!r}; {hint}known: {', '.join(known)}"


def matches_model(pattern: str, model: str) -> bool:
    """Whether a model is meant: its name, or the last part of a hub id or of a folder's path.

    The embedded models are meant by their own names alone, whatever a folder is called.
    """
    if model in EMBEDDED or pattern in EMBEDDED:
        return fnmatchcase(model, pattern)
    last = (Path(model).resolve() if Path(model).is_dir() else Path(model)).name
    return any(fnmatchcase(name.lower(), pattern.lower()) for name in (model, last))


def is_task(pattern: str, name: str) -> bool:
    """Whether a task is meant: by its name, the part before the slash, or a glob."""
    return pattern in (name, name.partition("/")[0]) or (is_glob(pattern) and fnmatchcase(name, pattern))


@dataclass(frozen=True)
class SchemePattern:
    """Schemes by a name, a glob, a word such as ``w8`` or ``w4a8``, or by fields as a contrast names them.

    A word stands for all formats of so many bits, of weights alone or with activations, but not for schemes of a
    method that is named.

    Raises:
        ValueError: if a name, a format, a granularity, an execution or a field is unknown.
    """

    text: str

    def __post_init__(self) -> None:
        if "=" in self.text:
            for name, value in self.fields.items():
                _check_field(name, value)
        elif not _WORD.fullmatch(self.text):
            _check_scheme(self.text)

    @property
    def fields(self) -> dict[str, str]:
        """The fields that are named; empty but for a pattern of fields."""
        return parse_fields(self.text, FIELDS) if "=" in self.text else {}

    @property
    def named(self) -> set[str]:
        """The fields that the pattern decides: the parts of a scheme, and the execution."""
        if not self.fields:
            return {*PARTS["scheme"]}
        return {part for name in self.fields for part in PARTS.get(name, (name,))}

    def matches(self, variant: Variant) -> bool:
        """Whether a scheme in its execution is one of these."""
        if word := _WORD.fullmatch(self.text):
            return _bits(variant.scheme) == word.groups()
        facets = facets_of_variant(variant)
        if self.fields:
            return all(fnmatchcase(facets[name], value) for name, value in self.fields.items())
        return fnmatchcase(facets["scheme"], self.text)


def facets_of_variant(variant: Variant) -> dict[str, str]:
    """The value of each of ``FIELDS``, empty where there is none."""
    return {**scheme_facets(variant.scheme), "execution": variant.execution or ""}


def _bits(scheme: Scheme) -> tuple[str | None, str | None]:
    if scheme.weight is None or scheme.kv_cache is not None or scheme.method is not None:
        return None, None
    return str(scheme.weight.format.bits), None if scheme.activation is None else str(scheme.activation.format.bits)


def _check_field(name: str, value: str) -> None:
    if name not in FIELDS:
        raise ValueError(unknown("field", name, FIELDS))
    if is_glob(value) or name == "rest":
        return
    if name == "scheme":
        _check_scheme(value)
    elif name == "granularity":
        parse_granularity(value)
    elif value not in (known := FORMATS if name == "format" else EXECUTIONS):
        raise ValueError(unknown(name, value, known))


def _check_scheme(text: str) -> None:
    head = re.split(r"[-:+@]", text)[0]
    if not is_glob(text):
        if str(Scheme.parse(text)) != text:
            raise ValueError(f"the scheme {text!r} is written {Scheme.parse(text)}")
    elif not is_glob(head) and head not in (known := [*FORMATS, *BLOCK_FORMATS, REFERENCE_NAME]):
        raise ValueError(unknown("number format", head, known))
