"""Metrics by name: those of this package, of installed packages, and of a user's file."""

from __future__ import annotations

import difflib
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType

from quantsuite import places
from quantsuite.metrics.accuracy import ACCURACY, NORMALIZED_ACCURACY
from quantsuite.metrics.definition import Metric
from quantsuite.metrics.divergence import DIVERGENCE
from quantsuite.metrics.layers import LAYERS
from quantsuite.metrics.match_rate import MATCH_RATE
from quantsuite.metrics.perplexity import DOCUMENT_PERPLEXITY, PERPLEXITY, WORD_PERPLEXITY
from quantsuite.metrics.truth_mass import TRUTH_MASS

ENTRY_POINT_GROUP = "quantsuite.metrics"
BUILT_IN = {
    each.name: each
    for each in (
        PERPLEXITY,
        DOCUMENT_PERPLEXITY,
        WORD_PERPLEXITY,
        ACCURACY,
        NORMALIZED_ACCURACY,
        TRUTH_MASS,
        MATCH_RATE,
        DIVERGENCE,
        LAYERS,
    )
}


_OF_PLACES: dict[str, tuple[Metric, ModuleType]] = {}
"""Metrics that were loaded from a place in this process, by name, with the modules that they are of."""


class MetricError(ValueError):
    """A metric that is not to be had."""


def metric(name: str) -> Metric:
    """A metric by its name, or by the place of one: ``file.py``, ``file.py:NAME`` or ``package.module:NAME``.

    Names are those of this package, of installed entry points of the group ``quantsuite.metrics``, and of what was
    loaded from a place before.  Without ``NAME`` a file holds one metric.

    Raises:
        MetricError: if there is none, with what there is.
    """
    if not is_place(name):
        return named_metric(name)
    found, module = _of_place(name)
    if found.name in BUILT_IN and found is not BUILT_IN[found.name]:
        raise MetricError(f"metric {name!r} is named {found.name!r}, as one of quantsuite's own; give it another name")
    earlier, origin = _OF_PLACES.get(found.name, (found, module))
    edited = origin is not module and origin.__file__ == module.__file__
    if earlier is not found and not edited:
        raise MetricError(f"metric {name!r} is named {found.name!r}, as one of another file; give it another name")
    _OF_PLACES[found.name] = found, module
    return found


def named_metric(name: str) -> Metric:
    """A metric by its name alone, as records carry it: what a file says never chooses what is imported.

    Raises:
        MetricError: if there is none, with what there is and the way out.
    """
    known = {**BUILT_IN, **{name: found for name, (found, _) in _OF_PLACES.items()}}
    if name in known:
        return known[name]
    entries = {entry.name: entry.value for entry in entry_points(group=ENTRY_POINT_GROUP)}
    if name in entries:
        return _of_place(entries[name])[0]
    close = difflib.get_close_matches(name, [*known, *entries], n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    raise MetricError(
        f"unknown metric {name!r}; {hint}known: {', '.join([*known, *entries])}; "
        f"one of your own is given by its file, --metric ./FILE.py, or installed as entry point {ENTRY_POINT_GROUP}"
    )


def is_place(name: str) -> bool:
    """Whether a name is that of a file or of a module's attribute."""
    return name.endswith(".py") or ":" in name


def _of_place(place: str) -> tuple[Metric, ModuleType]:
    where, attribute = places.split(place)
    if places.is_missing(where):
        raise MetricError(f"metric {place!r}: there is no file {Path(where).absolute()}; put the metric's file there")
    try:
        module = places.load_module(where)
    except Exception as error:
        text = (str(error).splitlines() or [""])[0]
        raise MetricError(f"metric in {where} cannot be imported: {type(error).__name__}: {text}") from error
    return _checked(module, attribute, where), module


def _checked(module: ModuleType, attribute: str, where: str) -> Metric:
    own = {name: value for name, value in vars(module).items() if isinstance(value, Metric)}
    # What a file imports from this package to build on is not its own.
    own = {name: value for name, value in own.items() if value not in BUILT_IN.values()}
    shown = ", ".join(own) or "no metric"
    if attribute:
        found = getattr(module, attribute, None)
        if not isinstance(found, Metric):
            raise MetricError(f"metric '{where}:{attribute}' is none; {where} has {shown}")
        return found
    if len(own) != 1:
        raise MetricError(f"{where} has {shown}; name one as {where}:NAME")
    return next(iter(own.values()))
