"""Metrics by name: those of this package, of installed packages, and of a user's file."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import sys
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType

from quantsuite.metrics.accuracy import ACCURACY, NORMALIZED_ACCURACY
from quantsuite.metrics.definition import Metric
from quantsuite.metrics.divergence import DIVERGENCE
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
    )
}


def metric(name: str) -> Metric:
    """A metric by its name, or by the place of one: ``file.py``, ``file.py:NAME`` or ``package.module:NAME``.

    Names are those of this package and of installed entry points of the group ``quantsuite.metrics``; without ``NAME``
    the file holds one metric.

    Raises:
        ValueError: if there is none, with what there is.
    """
    if name in BUILT_IN:
        return BUILT_IN[name]
    place, _, attribute = name.rpartition(":")
    if name.endswith(".py"):
        place, attribute = name, ""
    if place:
        return _of_place(place, attribute)
    entries = {entry.name: entry for entry in entry_points(group=ENTRY_POINT_GROUP)}
    if name in entries:
        return _checked(_loaded(entries[name].value.partition(":")[0]), entries[name].attr, entries[name].value)
    known = [*BUILT_IN, *entries]
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    raise ValueError(f"unknown metric {name!r}; {hint}known: {', '.join(known)}; one of your own is ./file.py:NAME")


def _of_place(place: str, attribute: str) -> Metric:
    if place.endswith(".py"):
        path = Path(place)
        if not path.is_file():
            where = f"{place}:{attribute}" if attribute else place
            raise ValueError(f"metric {where!r}: there is no file {path.absolute()}; put the metric's file there")
        return _checked(_loaded(str(path.resolve())), attribute, place)
    return _checked(_loaded(place), attribute, place)


@cache
def _loaded(place: str) -> ModuleType:
    """A module by name, or by the path of its file.

    Raises:
        ValueError: if importing it fails.
    """
    try:
        if not place.endswith(".py"):
            return importlib.import_module(place)
        name = f"quantsuite_metric_{Path(place).stem}"
        spec = importlib.util.spec_from_file_location(name, place)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
        return module
    except Exception as error:
        text = (str(error).splitlines() or [""])[0]
        raise ValueError(f"metric in {place} cannot be imported: {type(error).__name__}: {text}") from error


def _checked(module: ModuleType, attribute: str, where: str) -> Metric:
    own = {name: value for name, value in vars(module).items() if isinstance(value, Metric)}
    # What a file imports from this package to build on is not its own.
    own = {name: value for name, value in own.items() if value not in BUILT_IN.values()}
    shown = ", ".join(own) or "no metric"
    if attribute:
        found = getattr(module, attribute, None)
        if not isinstance(found, Metric):
            raise ValueError(f"metric '{where}:{attribute}' is none; {where} has {shown}")
        return found
    if len(own) != 1:
        raise ValueError(f"{where} has {shown}; name one as {where}:NAME")
    return next(iter(own.values()))
